//! `test`: all checks that a change must pass, in the order of their duration.

mod deny;
mod nextest;

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
pub(crate) use nextest::run_tests_as_root;
use nextest::{Which, examples};

use crate::{
    book,
    build::{self, Profile, QUICK},
    ebpf, fuzz,
    prepare::{PROBE, Preparer},
    report,
    report::Seconds,
    setup, shell, vm,
};

/// The variable that turns off sampling in the tests (`tests/src/workspace.rs`).
const WHOLE: &str = "QFENCE_TESTS_WHOLE";

/// The time for each fuzz target, in seconds.
const FUZZED: u32 = 10;

/// A stage of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// The format of all sources.
    Fmt,
    /// The licences and the origin of all dependencies.
    Deny,
    /// The documents as a book, and their links.
    Book,
    /// Clippy's and the compiler's lints, as errors.
    Clippy,
    /// The tests that need no privilege.
    Unit,
    /// The fuzzers, each for ten seconds; not if tests are selected by name.
    Fuzz,
    /// The tests of the whole program, as root.
    E2e,
    /// The same program in a Debian 12 machine; not if tests are selected by name.
    Vm,
}

/// The options of a run.
pub(crate) struct Plan<'a> {
    /// Only this stage.
    pub(crate) only: Option<Stage>,
    /// Only tests whose names contain this text.
    pub(crate) filter: Option<&'a str>,
    /// The profile of the program under test.
    pub(crate) program: Profile,
    /// Whether to test everything, without sampling.
    pub(crate) whole: bool,
}

/// Runs one stage, or all stages up to the first that fails.
pub(crate) fn test(plan: &Plan<'_>) -> Result<()> {
    let &Plan {
        only,
        filter,
        program,
        whole,
    } = plan;
    let stages: Vec<_> = match only {
        Some(stage) => vec![stage],
        None => {
            let mut all = Stage::value_variants().to_vec();
            all.retain(|stage| filter.is_none() || !matches!(stage, Stage::Fuzz | Stage::Vm));
            all
        }
    };
    if !stages
        .iter()
        .all(|stage| matches!(stage, Stage::Fmt | Stage::Deny | Stage::Book))
    {
        timed("set-up", setup::setup)?;
        // The crates that embed the object cannot be compiled, nor linted, without it.
        timed("eBPF object", ebpf::build)?;
    }
    for stage in stages {
        match stage {
            Stage::Fmt => timed("format", format)?,
            Stage::Deny => timed("dependencies", deny::deny)?,
            Stage::Book => timed("book", book::book)?,
            Stage::Clippy => timed("clippy", clippy)?,
            Stage::Unit => timed("unit tests", || unit(filter))?,
            Stage::Fuzz => timed("fuzzers", || fuzz::run_all(FUZZED))?,
            Stage::E2e => timed("end-to-end tests", || end_to_end(filter, program, whole))?,
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
    // In the profile of the tests, so that build scripts and macros are compiled only once.
    host.args(["--profile", QUICK]);
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
    shell::run(&mut nextest::run(Which::Unit, filter)?)?;
    shell::run(&mut examples(filter))
}

fn end_to_end(filter: Option<&str>, program: Profile, whole: bool) -> Result<()> {
    let program = match program {
        // It is built together with the tests.
        Profile::Quick => build::program(program),
        _ => build::build(program)?,
    };
    let preparer = Preparer::build()?;
    let probe = preparer.probe()?;
    preparer.image()?;
    preparer.engines()?;
    preparer.cri()?;
    preparer.libvirt()?;
    preparer.lxc()?;
    preparer.resolvers()?;
    preparer.prometheus()?;
    let mut nextest = nextest::run(Which::EndToEnd, filter)?;
    nextest.env("QFENCE_BIN", program).env(PROBE, probe);
    if whole {
        nextest.env(WHOLE, "1");
    } else {
        report::note(
            "    a start is killed at a sample of its system calls; with --whole, at all of them",
        );
    }
    shell::run(&mut nextest)
}

fn machine(program: Profile) -> Result<()> {
    let status = vm::test(program)?;
    ensure!(status == 0, "a command in the machine failed: see above");
    Ok(())
}
