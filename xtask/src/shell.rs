//! Child processes: the environment that they inherit, and the messages about their failures.

use std::{
    env,
    ffi::{OsStr, OsString},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{packages, workspace};

/// Prefixes of variables that `cargo run` sets for xtask and that a program started by xtask must not inherit.
const SET_BY_CARGO_RUN: [&str; 6] = [
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
    "LD_LIBRARY_",
];

/// Prefixes of the caller's settings for host code, which would break builds for another target or compiler.
const HOST_SETTINGS: [&str; 10] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTDOC",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "RUSTC",
    "RUSTFLAGS",
];

/// A program, in the environment of xtask without the variables that cargo set.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.env_remove("CARGO");
    remove_prefixed(&mut command, &SET_BY_CARGO_RUN);
    command
}

/// [`program`] for one that is in an sbin directory, which a user's PATH often lacks.
pub(crate) fn administrators(name: &str) -> Command {
    program(packages::path_of(name).unwrap_or_else(|| name.into()))
}

/// The cargo that runs xtask, in the workspace, with the caller's settings. The output is always in `target/`.
pub(crate) fn cargo() -> Command {
    in_workspace(host_cargo())
}

/// Cargo, or a program that runs cargo, in the workspace as in [`cargo`].
pub(crate) fn in_workspace(name: impl AsRef<OsStr>) -> Command {
    let mut command = program(name);
    command
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", workspace::target())
        .env_remove("CARGO_BUILD_TARGET")
        // The object that this variable names has been copied to the place where the build looks for it.
        .env_remove("QFENCE_EBPF_OBJECT");
    command
}

/// A cargo without the caller's settings, for another target, compiler or package. The toolchain (`RUSTUP_TOOLCHAIN`) and
/// the registry settings are kept.
pub(crate) fn pristine_cargo(cargo: impl AsRef<OsStr>) -> Command {
    let mut command = program(cargo);
    command.current_dir(workspace::root());
    remove_prefixed(&mut command, &HOST_SETTINGS);
    command
}

/// The cargo that runs xtask.
pub(crate) fn host_cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn remove_prefixed(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in env::vars_os() {
        if prefixes
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        {
            command.env_remove(name);
        }
    }
}

/// A program that runs as root: by sudo if xtask does not run as root.
pub(crate) fn as_root(name: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return program(name);
    }
    let mut command = program("sudo");
    command.arg(name);
    command
}

/// Whether xtask runs as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs a command whose output the user sees.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {}", describe(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            describe(command),
            output.status,
            said.trim()
        );
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("reading the output of {}", describe(command)))?;
    Ok(text)
}

/// Whether a command can be run and succeeds. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The command line, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut line = String::from("`");
    line.push_str(&command.get_program().to_string_lossy());
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line.push('`');
    line
}

/// The command line with words in quotes where a shell needs them, for a user to copy.
pub(crate) fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| {
        let word = word.to_string_lossy();
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._+@:,=-".contains(char);
        match !word.is_empty() && word.chars().all(is_plain) {
            true => word.into_owned(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_to_copy_has_its_words() {
        let words = ["a b", "it's", "", "$x", "/plain-1.0", "*"];
        let mut command = program("printf");
        command.arg("<%s>").args(words);
        let line = quoted(&command);
        let said = output(program("sh").args(["-c", &line])).unwrap();
        assert_eq!(said, words.map(|word| format!("<{word}>")).concat());
        assert!(line.ends_with(" /plain-1.0 '*'"), "{line}");
    }
}
