//! `build` and `run`: builds the eBPF object first, then qfence-user and qfence-verify, which embed it.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{commit, ebpf, remap, shell, tools, workspace};

/// Cargo's name of [`Profile::Quick`].
pub(crate) const QUICK: &str = "checks";

/// How qfence-user and qfence-verify are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With link-time optimisation, which takes minutes: for benchmarks.
    Release,
    /// For installation: as `Release`, and the same bytes from each checkout of a commit.
    Package,
    /// Built quickly, for tests and first steps. Test programs are built with the same profile and share its libraries.
    Quick,
    /// Cargo's profile `dev`.
    Debug,
}

/// Builds qfence, and returns the path of qfence-user.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    ebpf::build()?;
    shell::run(&mut cargo(profile)?)?;
    Ok(program(profile))
}

/// Builds qfence in the quick profile, and with it a program of the package `tests`; returns the path of that.
pub(crate) fn build_with(name: &str) -> Result<PathBuf> {
    ebpf::build()?;
    shell::run(cargo(Profile::Quick)?.args(["--bin", name]))?;
    Ok(program(Profile::Quick).with_file_name(name))
}

/// Cargo as it builds packages: of the caller's settings, only the toolchain has an effect on the program.
fn package() -> Result<Command> {
    let auditable = tools::AUDITABLE.program()?;
    let mut cargo = shell::in_workspace(&auditable);
    cargo
        .arg("auditable")
        .env("CARGO", shell::host_cargo())
        .env("CARGO_INCREMENTAL", "0")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            remap::flags(&remap::host_sysroot()?)?.join("\u{1f}"),
        );
    let commit = commit::current()?;
    cargo
        .env("QFENCE_COMMIT", commit.name)
        .env("SOURCE_DATE_EPOCH", commit.date.to_string());
    Ok(cargo)
}

/// Cargo that builds qfence-user and qfence-verify in a profile.
pub(crate) fn cargo(profile: Profile) -> Result<Command> {
    let mut cargo = match profile {
        Profile::Package => package()?,
        _ => shell::cargo(),
    };
    cargo.args(["build", "--package", "qfence-user"]);
    cargo.args(["--bin", "qfence-user", "--bin", "qfence-verify"]);
    if profile == Profile::Quick {
        // Cargo compiles a library once for each set of features, and the set depends on the selected packages. With
        // this package, the features are those of the tests (see tests/Cargo.toml).
        cargo.args(["--package", "tests"]);
    }
    cargo.args(profile.cargo());
    Ok(cargo)
}

/// The path of qfence-user after a build.
pub(crate) fn program(profile: Profile) -> PathBuf {
    workspace::target()
        .join(profile.directory())
        .join("qfence-user")
}

/// The path of qfence-verify, which `qfence-user verify` executes and which is built beside it.
pub(crate) fn verifier(program: &Path) -> PathBuf {
    program.with_file_name("qfence-verify")
}

impl Profile {
    /// Cargo's options for it.
    fn cargo(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Package => &["--profile", "packaged"],
            Self::Quick => &["--profile", QUICK],
            Self::Debug => &[],
        }
    }

    /// Its directory in `target`.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Package => "packaged",
            Self::Quick => QUICK,
            Self::Debug => "debug",
        }
    }
}

/// Builds qfence and replaces this process by qfence-user, as root.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let program = build(Profile::Release)?;
    let mut command = shell::as_root(program);
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("starting {}", shell::describe(&command)))
}
