//! `bench`: what a fence costs.

use anyhow::{Result, ensure};

use crate::{
    build::{self, Profile},
    report, setup, shell, test, workspace,
};

/// The benchmarks, and what they are about.
const BENCHES: [(&str, &str); 6] = [
    ("traffic", "what calls and packets cost"),
    ("policy", "what a policy costs"),
    ("audit", "what the record of attempts costs"),
    ("guest", "what is left of a guest's network"),
    ("start", "what a start costs, and a fence in memory"),
    ("many", "what many fences at a time cost"),
];

/// Builds, measures as root, shows a table, and keeps the figures in `target/bench`. An error if a goal
/// is missed; `quick` is for a first look.
pub(crate) fn bench(quick: bool) -> Result<()> {
    report::heading("set up");
    setup::setup()?;
    setup::competitors();
    report::heading("build");
    let program = build::build(Profile::Release)?;
    let mut missed = Vec::new();
    for (bench, what) in BENCHES {
        report::heading(what);
        let figures = workspace::target().join(format!("bench/{bench}.json"));
        let mut cargo = shell::cargo();
        cargo
            .args([
                "bench",
                "--quiet",
                "--package",
                "tests",
                "--bench",
                bench,
                "--",
            ])
            .arg("--json")
            .arg(&figures)
            .env("QFENCE_BIN", &program);
        if quick {
            cargo.arg("--quick");
        }
        if !shell::is_root() {
            test::run_tests_as_root(&mut cargo)?;
        }
        if shell::run(&mut cargo).is_err() {
            missed.push(bench);
        }
        report::note(&format!("the figures are in {}", figures.display()));
    }
    ensure!(
        missed.is_empty(),
        "goals missed, or not measured: {}",
        missed.join(", ")
    );
    Ok(())
}
