//! `test`: everything that a change must pass, in the order of what fails soonest.

use std::{env, ffi::OsString, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use tests::{debian::prometheus, guest::image::image};

use crate::{
    build::{self, Profile, QUICK},
    ebpf, fuzz, report,
    report::Seconds,
    setup, shell, vm,
};

/// How long each fuzzer runs, in seconds.
const FUZZED: u32 = 10;

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// The format of all sources.
    Fmt,
    /// Clippy's and the compiler's lints, as errors.
    Clippy,
    /// The tests that need no privilege.
    Unit,
    /// The fuzzers, each for ten seconds; not if tests are picked by name.
    Fuzz,
    /// The tests of the whole program, as root.
    E2e,
    /// The same program in a whole Debian 12 machine; not if tests are picked by name.
    Vm,
}

/// Runs one stage, or all of them, up to the first that fails. The program under test is built in a profile of its own.
pub(crate) fn test(only: Option<Stage>, filter: Option<&str>, program: Profile) -> Result<()> {
    let stages: Vec<_> = match only {
        Some(stage) => vec![stage],
        None => {
            let mut all = Stage::value_variants().to_vec();
            all.retain(|stage| filter.is_none() || !matches!(stage, Stage::Fuzz | Stage::Vm));
            all
        }
    };
    if stages != [Stage::Fmt] {
        timed("set-up", setup::setup)?;
        // The crates that embed the object cannot even be linted without it.
        timed("eBPF object", ebpf::build)?;
    }
    for stage in stages {
        match stage {
            Stage::Fmt => timed("format", format)?,
            Stage::Clippy => timed("clippy", clippy)?,
            Stage::Unit => timed("unit tests", || unit(filter))?,
            Stage::Fuzz => timed("fuzzers", || fuzz::run_all(FUZZED))?,
            Stage::E2e => timed("end-to-end tests", || end_to_end(filter, program))?,
            Stage::Vm => timed("Debian machine", || machine(program))?,
        }
    }
    Ok(())
}

fn timed(what: &str, stage: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    report::heading(what);
    let outcome = stage();
    let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
    report::heading(&format!(
        "{what}: {verdict} in {}",
        Seconds(start.elapsed())
    ));
    outcome.with_context(|| format!("{what} failed"))
}

fn format() -> Result<()> {
    require_component("fmt", "rustfmt")?;
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
        .context("not formatted: run `cargo fmt --all`")
}

fn clippy() -> Result<()> {
    require_component("clippy", "clippy")?;
    let mut host = shell::cargo();
    host.args([
        "clippy",
        "--workspace",
        "--exclude",
        "qfence-ebpf",
        "--all-targets",
    ]);
    shell::run(host.args(["--", "-D", "warnings"]))?;
    for mut clippy in ebpf::clippy()? {
        shell::run(&mut clippy)?;
    }
    Ok(())
}

fn require_component(subcommand: &str, component: &str) -> Result<()> {
    shell::output(shell::cargo().args([subcommand, "--version"]))
        .with_context(|| format!("{component} is missing: run `rustup component add {component}`"))
        .map(drop)
}

fn unit(filter: Option<&str>) -> Result<()> {
    let mut cargo = shell::cargo();
    // In the profile of the end-to-end tests, so that the libraries are compiled once.
    cargo.args(["test", "--profile", QUICK]);
    for package in ["qfence-common", "qfence-user", "xtask"] {
        cargo.args(["--package", package]);
    }
    shell::run(cargo.args(filter))
}

fn end_to_end(filter: Option<&str>, program: Profile) -> Result<()> {
    let program = build::build(program)?;
    report::during(
        "the Linux guest: Debian's cloud kernel, unpacked under target/guest, and busybox",
        image,
    )?;
    report::during(
        "Prometheus: Debian's, 19 MB, unpacked under target/guest and not installed",
        prometheus,
    )?;
    let mut cargo = shell::cargo();
    // Each failing test program is told, not only the first: a run takes minutes.
    cargo
        .args(["test", "--profile", QUICK])
        .args(["--package", "tests", "--no-fail-fast"])
        .args(filter);
    cargo.env("QFENCE_BIN", program);
    if !shell::is_root() {
        run_tests_as_root(&mut cargo)?;
    }
    shell::run(&mut cargo)
}

fn machine(program: Profile) -> Result<()> {
    let status = vm::run(Vec::new(), program)?;
    ensure!(status == 0, "a command in the machine failed: see above");
    Ok(())
}

/// Has cargo build the test programs as the user who owns the checkout, and start them as root, with
/// the user's environment: they call cargo themselves.
pub(crate) fn run_tests_as_root(cargo: &mut Command) -> Result<()> {
    let path = env::var_os("PATH").context("there is no PATH in the environment")?;
    // Cargo splits the runner at white space.
    let dirs = env::split_paths(&path).filter(|dir| {
        dir.to_str()
            .is_some_and(|dir| !dir.contains(char::is_whitespace))
    });
    let mut runner = OsString::from("sudo --preserve-env env PATH=");
    runner.push(env::join_paths(dirs).context("joining the PATH")?);
    let arch = env::consts::ARCH.to_uppercase();
    cargo.env(
        format!("CARGO_TARGET_{arch}_UNKNOWN_LINUX_GNU_RUNNER"),
        runner,
    );
    Ok(())
}
