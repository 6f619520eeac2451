//! `bench`: what a policy costs to compile, to put in force, and at each call.

use anyhow::Result;

use crate::{
    build::{self, Profile},
    report, setup, shell, test, workspace,
};

/// Builds, measures as root, shows a table, and keeps the figures in `target/bench`. An error if a goal
/// is missed; `quick` is for a first look.
pub(crate) fn bench(quick: bool) -> Result<()> {
    report::heading("set up");
    setup::setup()?;
    report::heading("build");
    let program = build::build(Profile::Release)?;
    let figures = workspace::target().join("bench/policy.json");
    let mut cargo = shell::cargo();
    cargo
        .args(["bench", "--package", "tests", "--bench", "policy", "--"])
        .arg("--json")
        .arg(&figures)
        .env("QFENCE_BIN", program);
    if quick {
        cargo.arg("--quick");
    }
    if !shell::is_root() {
        test::run_tests_as_root(&mut cargo)?;
    }
    report::heading("bench");
    shell::run(&mut cargo)?;
    report::note(&format!("the figures are in {}", figures.display()));
    Ok(())
}
