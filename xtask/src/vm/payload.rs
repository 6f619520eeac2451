//! The machine's second disk: a tar archive of the programs and the commands. So the first disk is made only once.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::machine::output_terminal;
use crate::{arch::Arch, build::verifier, cross, prepare::Preparer, shell};

/// The script that the machine's service runs.
const MAIN: &str = include_str!("main.sh");
/// A smoke test.
const SMOKE: &str = include_str!("smoke.sh");
/// A test of rules by name.
const NAMES: &str = include_str!("names.sh");
/// A test of a guest that is fenced by its device.
const DEVICE: &str = include_str!("device.sh");
/// A test of a fence that is attached to a process that runs.
const ATTACH: &str = include_str!("attach.sh");
/// A test of a guest under QEMU with tap devices.
const TAP: &str = include_str!("tap.sh");
/// The init of that guest.
const GUEST_INIT: &str = include_str!("guest-init.sh");
/// A test of the Debian package.
const PACKAGE: &str = include_str!("package.sh");
/// A test of 32-bit ARM programs.
const COMPAT: &str = include_str!("compat.sh");
/// A test of the sinks: the journal and syslog.
const SINKS: &str = include_str!("sinks.sh");
/// A test of requests to systemd.
const MANAGERS: &str = include_str!("managers.sh");
/// Measures the cost of a fence and of systemd's own filter.
const BESIDE_SYSTEMD: &str = include_str!("beside-systemd.sh");

/// What is in the archive besides the scripts, and for which processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents<'a> {
    /// The processor of the machine.
    pub(super) arch: Arch,
    /// The path of qfence-user, with qfence-verify beside it.
    pub(super) program: &'a Path,
    /// The Debian package, if a command is about it.
    pub(super) package: Option<&'a Path>,
    /// The commands.
    pub(super) commands: &'a [Vec<OsString>],
}

/// Writes the archive below `dir` and returns its path.
pub(super) fn write(dir: &Path, contents: Contents<'_>) -> Result<PathBuf> {
    let Contents {
        arch,
        program,
        package,
        commands,
    } = contents;
    let probe = if arch.is_here() {
        Preparer::build()?.probe()?
    } else {
        cross::probe(arch)?
    };
    let staged = dir.join("payload");
    let (bin, scripts) = (staged.join("bin"), staged.join("commands"));
    for directory in [&bin, &scripts] {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
    }
    let copy = |from: &Path, name: &str| {
        fs::copy(from, bin.join(name)).with_context(|| format!("copying {}", from.display()))
    };
    copy(program, "qfence-user")?;
    copy(&verifier(program), "qfence-verify")?;
    copy(&probe, "probe")?;
    for (name, text) in [
        ("smoke", SMOKE),
        ("names", NAMES),
        ("device", DEVICE),
        ("attach", ATTACH),
        ("tap", TAP),
        ("package", PACKAGE),
        ("compat", COMPAT),
        ("sinks", SINKS),
        ("managers", MANAGERS),
        ("beside-systemd", BESIDE_SYSTEMD),
    ] {
        executable(&bin.join(name), text)?;
    }
    if let Some(package) = package {
        fs::copy(package, staged.join("qfence.deb"))
            .with_context(|| format!("copying {}", package.display()))?;
    }
    executable(&staged.join("main"), MAIN)?;
    executable(&staged.join("guest-init"), GUEST_INIT)?;
    let terminal = staged.join("terminal");
    fs::write(&terminal, output_terminal(arch))
        .with_context(|| format!("writing {}", terminal.display()))?;
    for (number, command) in commands.iter().enumerate() {
        // The shell lists them in the order of their names.
        let path = scripts.join(format!("{number:04}"));
        fs::write(&path, quoted(command)).with_context(|| format!("writing {}", path.display()))?;
    }
    let archive = dir.join("payload.tar");
    let mut tar = shell::program("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--file"]);
    tar.arg(&archive).arg("--directory").arg(&staged).arg(".");
    shell::output(&mut tar)?;
    Ok(archive)
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", path.display()))
}

/// A command as a line for the shell, with each word in quotes.
fn quoted(command: &[OsString]) -> Vec<u8> {
    let mut line = Vec::new();
    for word in command {
        line.push(b'\'');
        for byte in word.as_bytes() {
            match byte {
                b'\'' => line.extend_from_slice(br"'\''"),
                byte => line.push(*byte),
            }
        }
        line.extend_from_slice(b"' ");
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_through_a_shell_as_they_were() {
        let words = ["two words", "it's", "$HOME", "", "a\\b\"c\nd", "*"];
        let mut command = vec!["printf".into(), "<%s>".into()];
        command.extend(words.map(OsString::from));
        let line = String::from_utf8(quoted(&command)).unwrap();
        let said = shell::output(shell::program("sh").args(["-c", &line])).unwrap();
        assert_eq!(said, words.map(|word| format!("<{word}>")).concat());
    }
}
