//! `build` and `run`: the eBPF object first, then qfence-user and qfence-verify, which embed it.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{ebpf, shell, workspace};

/// Cargo's name of [`Profile::Quick`].
pub(crate) const QUICK: &str = "checks";

/// How qfence-user and qfence-verify are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With optimisations of the program as a whole, which take minutes: to install, and to measure.
    Release,
    /// With few optimisations: for a first look, and for tests, whose own programs share the libraries.
    Quick,
    /// Without.
    Debug,
}

/// Builds qfence, and returns the path of qfence-user.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    ebpf::build()?;
    shell::run(&mut cargo(profile))?;
    Ok(program(profile))
}

/// Builds qfence in the quick profile, and with it a program of the package `tests`; returns the path of that.
pub(crate) fn build_with(name: &str) -> Result<PathBuf> {
    ebpf::build()?;
    shell::run(cargo(Profile::Quick).args(["--bin", name]))?;
    Ok(program(Profile::Quick).with_file_name(name))
}

fn cargo(profile: Profile) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--package", "qfence-user"]);
    cargo.args(["--bin", "qfence-user", "--bin", "qfence-verify"]);
    if profile == Profile::Quick {
        // Cargo compiles a library once for each set of features, and which features it has depends on the packages:
        // with this one they are those of the tests (see tests/Cargo.toml).
        cargo.args(["--package", "tests"]);
    }
    cargo.args(profile.cargo());
    cargo
}

/// The path of the program, once it is built.
pub(crate) fn program(profile: Profile) -> PathBuf {
    workspace::target()
        .join(profile.directory())
        .join("qfence-user")
}

/// The path of the program that `qfence-user verify` executes, and that is built with it.
pub(crate) fn verifier(program: &Path) -> PathBuf {
    program.with_file_name("qfence-verify")
}

impl Profile {
    /// What cargo is given for it.
    fn cargo(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Quick => &["--profile", QUICK],
            Self::Debug => &[],
        }
    }

    /// Where in `target` cargo puts what it builds.
    fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Quick => QUICK,
            Self::Debug => "debug",
        }
    }
}

/// Builds qfence and becomes it, as root.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let program = build(Profile::Release)?;
    let mut command = shell::as_root(program);
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("starting {}", shell::describe(&command)))
}
