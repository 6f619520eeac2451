//! Changes the network of a namespace by the commands that administrators use: `ip`, `bridge` and `nft`.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::verify::netns::Netns;

/// The directories of the commands.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The file of a command.
///
/// # Errors
/// If it is not installed.
pub fn find(command: &str, package: &str) -> Result<PathBuf> {
    let paths = DIRECTORIES.map(|directory| Path::new(directory).join(command));
    let found = paths.into_iter().find(|path| path.exists());
    found.with_context(|| {
        format!("the command {command} is not installed: install the package {package}")
    })
}

/// Makes changes with `ip`, a line each.
///
/// # Errors
/// If `ip` is not installed, or the kernel refuses one.
pub fn ip(netns: &Netns, lines: &str) -> Result<()> {
    run(netns, ("ip", "iproute2"), &["-batch", "-"], lines)
}

/// Makes changes with `ip`, a line each, of rules whose family no address shows: those of IPv6.
///
/// # Errors
/// As [`ip`].
pub fn ip6(netns: &Netns, lines: &str) -> Result<()> {
    run(netns, ("ip", "iproute2"), &["-6", "-batch", "-"], lines)
}

/// Makes a change of a bridge.
///
/// # Errors
/// If `bridge` is not installed, or the kernel refuses it.
pub fn bridge(netns: &Netns, change: &str) -> Result<()> {
    let arguments: Vec<_> = change.split(' ').collect();
    run(netns, ("bridge", "iproute2"), &arguments, "")
}

/// Runs a script of nftables.
///
/// # Errors
/// If `nft` is not installed, or the kernel refuses the script.
pub fn nft(netns: &Netns, script: &str) -> Result<()> {
    run(netns, ("nft", "nftables"), &["--file", "-"], script)
}

/// Sets a parameter of a namespace's network, such as `ipv4/ip_forward`.
///
/// # Errors
/// If the kernel has no such parameter, or refuses the value.
pub fn set(netns: &Netns, parameter: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(parameter);
    netns.run(|| fs::write(&path, value).with_context(|| format!("write {}", path.display())))
}

/// Sets a parameter of a namespace's network, unless this kernel has none of this name.
///
/// # Errors
/// If the kernel refuses the value.
pub(super) fn set_if_there(netns: &Netns, parameter: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(parameter);
    let written = netns.run(|| Ok(fs::write(&path, value)))?;
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("write {}", path.display())),
    }
}

/// A path of a namespace for `ip`, which is valid as long as the namespace is not dropped.
pub(super) fn path(netns: &Netns) -> String {
    let descriptor = netns.as_fd().as_raw_fd();
    format!("/proc/{}/fd/{descriptor}", process::id())
}

fn run(
    netns: &Netns,
    (command, package): (&str, &str),
    arguments: &[&str],
    input: &str,
) -> Result<()> {
    let program = find(command, package)?;
    let output = netns.run(|| {
        let mut child = Command::new(&program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let written = child
            .stdin
            .take()
            .context("no pipe to a command")?
            .write_all(input.as_bytes());
        // A command that ends before it has read everything says why.
        let output = child.wait_with_output()?;
        if output.status.success() {
            written.with_context(|| format!("write to {command}"))?;
        }
        Ok(output)
    })?;
    ensure!(
        output.status.success(),
        "{command} {}: {}\n{input}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_installed_is_named_with_its_package() {
        assert!(find("sh", "dash").unwrap().ends_with("sh"));
        let error = find("no-such-command", "no-such-package").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the command no-such-command is not installed: install the package no-such-package"
        );
    }
}
