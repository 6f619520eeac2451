//! Builds qfence for the architecture of another machine: with Debian's cross compiler as the linker, and Rust's standard
//! library for that target. The eBPF objects are the same for all.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    arch::Arch,
    build::{self, Profile, QUICK},
    ebpf, packages, report, setup, shell, workspace,
};

/// Installs what is missing to build for `arch`.
pub(crate) fn set_up(arch: Arch) -> Result<()> {
    if arch.is_here() {
        return Ok(());
    }
    ensure!(
        arch == Arch::Aarch64,
        "programs for {} are built on such a machine only",
        arch.name()
    );
    setup::install(
        &format!("to build for {}", arch.name()),
        &packages::missing_for_aarch64(),
    )?;
    standard_library(arch)
}

/// Builds qfence for `arch`, and returns the path of qfence-user. What is missing has been installed.
pub(crate) fn build(arch: Arch, profile: Profile) -> Result<PathBuf> {
    if arch.is_here() {
        return build::build(profile);
    }
    ebpf::build()?;
    shell::run(&mut for_target(build::cargo(profile)?, arch))?;
    Ok(directory(arch, profile).join("qfence-user"))
}

/// Builds the static program `probe` of the tests for another architecture, and returns its path.
pub(crate) fn probe(arch: Arch) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["rustc", "--profile", QUICK]);
    cargo.args(["--package", "tests", "--bin", "probe"]);
    let mut cargo = for_target(cargo, arch);
    // As in tests/src/probe.rs.
    cargo.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
    shell::run(&mut cargo)?;
    Ok(directory(arch, Profile::Quick).join("probe"))
}

fn for_target(mut cargo: Command, arch: Arch) -> Command {
    let linker = format!("{}-linux-gnu-gcc", arch.name());
    let name = arch.target().to_uppercase().replace('-', "_");
    cargo
        .args(["--target", arch.target()])
        .env(format!("CARGO_TARGET_{name}_LINKER"), linker);
    cargo
}

/// Where cargo puts programs for `arch`.
fn directory(arch: Arch, profile: Profile) -> PathBuf {
    let directory = workspace::target().join(arch.target());
    directory.join(profile.directory())
}

/// Has rustup install Rust's standard library for the target, if it is missing.
fn standard_library(arch: Arch) -> Result<()> {
    let target = arch.target();
    if has_standard_library(target)? {
        return Ok(());
    }
    ensure!(
        packages::has_program("rustup"),
        "the compiler has no standard library for {target}, and there is no rustup to install it: install rustup, or the \
         library"
    );
    let mut rustup = shell::program("rustup");
    rustup.current_dir(workspace::root());
    report::step(
        &format!("Rust's standard library for {target}"),
        rustup.args(["target", "add", target]),
    )
}

fn has_standard_library(target: &str) -> Result<bool> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut ask = shell::program(rustc);
    ask.current_dir(workspace::root());
    ask.args(["--print", "target-libdir", "--target", target]);
    let directory = shell::output(&mut ask)
        .with_context(|| format!("asking the compiler for its libraries for {target}"))?;
    Ok(PathBuf::from(directory.trim_end()).is_dir())
}
