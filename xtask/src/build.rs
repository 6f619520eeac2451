//! `build` and `run`: the eBPF object first, then qfence-user, which embeds it.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{ebpf, shell, workspace};

/// How qfence-user is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With optimisations.
    Release,
    /// Without.
    Debug,
}

/// Builds qfence, and returns the path of the program.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    ebpf::build()?;
    let mut cargo = shell::cargo();
    cargo.args(["build", "--package", "qfence-user"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    Ok(program(profile))
}

/// The path of the program, once it is built.
pub(crate) fn program(profile: Profile) -> PathBuf {
    let dir = match profile {
        Profile::Release => "release",
        Profile::Debug => "debug",
    };
    workspace::target().join(dir).join("qfence-user")
}

/// Builds qfence and becomes it, as root.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let program = build(Profile::Release)?;
    let mut command = shell::as_root(program);
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("starting {}", shell::describe(&command)))
}
