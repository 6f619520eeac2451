//! `bench`: what a fence costs.

mod plot;
mod systemd;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tests::{bench::Report, probe};

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
/// One that is a machine's of its own.
const SYSTEMD: (&str, &str) = (
    systemd::NAME,
    "what it costs beside systemd's IPAddressDeny=",
);

/// Builds, measures as root, shows tables, and keeps the figures and a plot of them in `target/bench`. An error
/// if a goal is missed; `quick` is for a first look.
pub(crate) fn bench(quick: bool) -> Result<()> {
    report::heading("set up");
    setup::setup()?;
    setup::competitors();
    report::heading("build");
    let program = build::build(Profile::Release)?;
    let probe = report::during("the probe, which makes the traffic", || {
        probe::build("release")
    })?;
    let mut missed = Vec::new();
    for (bench, what) in BENCHES {
        report::heading(what);
        forget(&figures(bench))?;
        if let Err(error) = run(bench, &program, &probe, quick) {
            report::note(&format!("{error:#}"));
            missed.push(bench);
        }
    }
    let (bench, what) = SYSTEMD;
    report::heading(what);
    forget(&figures(bench))?;
    if let Err(error) = beside_systemd(&program, quick) {
        report::note(&format!("{error:#}"));
        missed.push(bench);
    }
    report::heading("the plot");
    draw()?;
    ensure!(
        missed.is_empty(),
        "goals missed, or not measured: {}",
        missed.join(", ")
    );
    Ok(())
}

/// Where a benchmark's figures are.
fn figures(bench: &str) -> PathBuf {
    workspace::target().join(format!("bench/{bench}.json"))
}

/// Of a benchmark that fails nothing is to be seen, and not what an earlier run found.
fn forget(figures: &Path) -> Result<()> {
    match fs::remove_file(figures) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", figures.display()))
        }
        _ => Ok(()),
    }
}

fn run(bench: &str, program: &Path, probe: &Path, quick: bool) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "tests", "--bench", bench]);
    if !shell::is_root() {
        test::run_tests_as_root(&mut cargo)?;
    }
    cargo
        .args(["--", "--json"])
        .arg(figures(bench))
        .args(quick.then_some("--quick"))
        .env("QFENCE_BIN", program)
        .env(probe::BUILT, probe);
    shell::run(&mut cargo)
}

fn beside_systemd(program: &Path, quick: bool) -> Result<()> {
    let found = systemd::measure(program, quick)?;
    let mut table = Vec::new();
    found.show(&mut table)?;
    report::result(String::from_utf8_lossy(&table).trim_end())?;
    found.write(&figures(systemd::NAME))
}

/// Draws what there is of figures.
fn draw() -> Result<()> {
    let mut reports = Vec::new();
    for (bench, what) in BENCHES.into_iter().chain([SYSTEMD]) {
        let path = figures(bench);
        if path.exists() {
            reports.push((what, read(&path)?));
        }
    }
    let file = workspace::target().join("bench/bench.svg");
    plot::plot(&reports, &file)?;
    report::note(&format!(
        "the figures are in {}, and a plot of them in {}",
        workspace::target().join("bench").display(),
        file.display()
    ));
    Ok(())
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}
