//! `bench`: measures the cost of a fence.

mod systemd;

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build::{self, Profile, QUICK},
    prepare::{PROBE, Preparer},
    report, setup, shell, test, workspace,
};

/// The cargo profile of the benchmarks and the program `probe`.
const MEASURING: &str = "measuring";

/// The benchmarks, and their subjects.
const BENCHES: [(&str, &str); 8] = [
    ("traffic", "what calls and packets cost"),
    ("policy", "what a policy costs"),
    ("names", "what look-ups of names cost"),
    ("audit", "what the record of attempts costs"),
    ("guest", "what is left of a guest's network"),
    ("devices", "what the frames of a tap device cost"),
    ("start", "what a start costs, and a fence in memory"),
    ("many", "what many fences at a time cost"),
];
/// The benchmark that runs in the Debian machine.
const SYSTEMD: (&str, &str) = (
    systemd::NAME,
    "what it costs beside systemd's IPAddressDeny=",
);

/// Builds, measures as root, prints tables, and writes the figures and a plot of them to `target/bench`. `quick` measures
/// for seconds, not for minutes. `against` is another build of qfence-user to measure beside it; `only` names the one
/// benchmark to run. `write_plot` puts the plot into `docs/` as well.
///
/// # Errors
/// If a goal is missed or a benchmark fails, or there is none of this name.
pub(crate) fn bench(
    quick: bool,
    against: Option<&Path>,
    only: Option<&str>,
    write_plot: bool,
) -> Result<()> {
    let names = BENCHES.iter().chain([&SYSTEMD]).map(|(name, _)| *name);
    if let Some(only) = only {
        ensure!(
            names.clone().any(|name| name == only),
            "there is no benchmark {only}; there are {}",
            names.collect::<Vec<_>>().join(", ")
        );
    }
    let is_wanted = |name: &str| only.is_none_or(|only| only == name);
    report::heading("set up");
    setup::setup()?;
    setup::competitors();
    report::heading("build");
    let program = build::build(Profile::Release)?;
    let probe = Preparer::build()?.probe_in(MEASURING)?;
    let mut missed = Vec::new();
    for (bench, what) in BENCHES.into_iter().filter(|(name, _)| is_wanted(name)) {
        report::heading(what);
        forget(&figures(bench))?;
        if let Err(error) = run(bench, &program, &probe, quick, against) {
            report::note(&format!("{error:#}"));
            missed.push(bench);
        }
    }
    let (bench, what) = SYSTEMD;
    if is_wanted(bench) {
        report::heading(what);
        forget(&figures(bench))?;
        if let Err(error) = beside_systemd(&program, quick) {
            report::note(&format!("{error:#}"));
            missed.push(bench);
        }
    }
    report::heading("the plot");
    let plot = draw()?;
    if write_plot {
        // A plot without a benchmark would say nothing of what it lacks.
        for (bench, _) in BENCHES.into_iter().chain([SYSTEMD]) {
            ensure!(
                figures(bench).exists(),
                "{bench} was not measured, so docs/bench.svg is not written"
            );
        }
        let path = workspace::root().join("docs/bench.svg");
        fs::copy(&plot, &path).with_context(|| format!("writing {}", path.display()))?;
        report::note(&format!("wrote {}", path.display()));
    }
    ensure!(
        missed.is_empty(),
        "goals missed, or not measured: {}",
        missed.join(", ")
    );
    Ok(())
}

/// The file of a benchmark's figures.
fn figures(bench: &str) -> PathBuf {
    workspace::target().join(format!("bench/{bench}.json"))
}

/// Removes the figures of an earlier run, so that they are not taken for those of a benchmark that fails.
fn forget(figures: &Path) -> Result<()> {
    match fs::remove_file(figures) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", figures.display()))
        }
        _ => Ok(()),
    }
}

fn run(
    bench: &str,
    program: &Path,
    probe: &Path,
    quick: bool,
    against: Option<&Path>,
) -> Result<()> {
    let mut cargo = cargo_bench(bench);
    if !shell::is_root() {
        test::run_tests_as_root(&mut cargo)?;
    }
    cargo.args(options(bench, quick));
    cargo.env("QFENCE_BIN", program).env(PROBE, probe);
    if let Some(other) = against {
        cargo.env("QFENCE_OTHER", other);
    }
    shell::run(&mut cargo)
}

fn cargo_bench(bench: &str) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--profile", MEASURING]);
    cargo.args(["--package", "tests", "--bench", bench]);
    cargo
}

/// The arguments of the benchmark itself.
fn options(bench: &str, quick: bool) -> Vec<OsString> {
    let mut words = vec!["--".into(), "--json".into(), figures(bench).into()];
    words.extend(quick.then(|| "--quick".into()));
    words
}

/// Measures in the machine. The benchmark computes figures from the lines that the script there prints.
fn beside_systemd(program: &Path, quick: bool) -> Result<()> {
    let lines = systemd::measure(program, quick)?;
    let path = workspace::target().join("bench/systemd.lines");
    let context = || format!("keeping {}", path.display());
    fs::create_dir_all(workspace::target().join("bench")).with_context(context)?;
    fs::write(&path, lines.join("\n")).with_context(context)?;
    let mut cargo = cargo_bench(systemd::NAME);
    cargo.args(options(systemd::NAME, quick));
    cargo.stdin(File::open(&path).with_context(context)?);
    shell::run(&mut cargo)
}

/// Draws all figures that were measured, and returns the file of the plot.
fn draw() -> Result<PathBuf> {
    let file = workspace::target().join("bench/bench.svg");
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--profile", QUICK]);
    cargo.args(["--package", "tests", "--example", "plot", "--"]);
    cargo.arg(&file);
    for (bench, what) in BENCHES.into_iter().chain([SYSTEMD]) {
        let path = figures(bench);
        if path.exists() {
            cargo.arg(path).arg(what);
        }
    }
    shell::run(&mut cargo)?;
    report::note(&format!(
        "the figures are in {}, and a plot of them in {}",
        workspace::target().join("bench").display(),
        file.display()
    ));
    Ok(file)
}
