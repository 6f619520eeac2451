//! `fuzz`: builds the fuzz targets in `fuzz/` and runs each for some seconds. It uses the compiler of all other crates.

use std::{
    fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::available_parallelism,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build::QUICK, report, shell, workspace};

/// The targets, and the maximum length of their inputs in bytes.
const TARGETS: [(&str, u32); 10] = [
    ("arguments", 4096),
    ("event", 512),
    ("frame", 256),
    ("nri", 2048),
    ("packet", 256),
    ("profile", 4096),
    ("record", 4096),
    ("resolv", 2048),
    ("resolver", 1024),
    ("rule", 256),
];

/// The file name extension of binary seeds, which are stored in hexadecimal.
const HEX: &str = "hex";

/// How many lines of a failed target's output are shown.
const SHOWN: usize = 40;

/// A running target.
struct Run {
    name: &'static str,
    process: Child,
    log: PathBuf,
}

/// Runs all targets, each for this time, as many in parallel as there are processors.
pub(crate) fn run_all(seconds: u32) -> Result<()> {
    run(&TARGETS, seconds)
}

/// Runs one target, or all of them.
pub(crate) fn fuzz(target: Option<&str>, seconds: u32) -> Result<()> {
    match target {
        None => run_all(seconds),
        Some(name) => {
            let found: Vec<_> = TARGETS
                .into_iter()
                .filter(|target| target.0 == name)
                .collect();
            let names = TARGETS.map(|(name, _)| name).join(", ");
            ensure!(
                !found.is_empty(),
                "unknown target {name}; the targets are {names}"
            );
            run(&found, seconds)
        }
    }
}

fn run(targets: &[(&'static str, u32)], seconds: u32) -> Result<()> {
    build()?;
    let mut failed = Vec::new();
    for side_by_side in targets.chunks(available_parallelism().map_or(1, usize::from)) {
        let runs = side_by_side.iter().map(|target| start(*target, seconds));
        // Starts all of them before it waits for the first.
        for run in runs.collect::<Result<Vec<_>>>()? {
            let name = run.name;
            if !finish(run)? {
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} failed: see above", failed.join(", "));
    }
    Ok(())
}

/// Builds the targets. `fuzz/rustc.sh` compiles the crates of this workspace; all others are compiled as for tests.
fn build() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--profile", QUICK, "--package", "fuzz"])
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            workspace::root().join("fuzz/rustc.sh"),
        );
    shell::run(&mut cargo)
}

/// Starts a target with its seeds and the inputs that earlier runs found.
fn start((name, longest): (&'static str, u32), seconds: u32) -> Result<Run> {
    let work = workspace::target().join("fuzz");
    let corpus = work.join("corpus").join(name);
    plant(&workspace::root().join("fuzz/corpus").join(name), &corpus)
        .with_context(|| format!("cannot prepare the seeds of {name}"))?;
    let log = work.join(format!("{name}.log"));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let program = workspace::target().join(QUICK).join(format!("fuzz-{name}"));
    let mut command = Command::new(&program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={longest}"))
        // The limit of one input: generous, to detect a hang.
        .arg("-timeout=20")
        .arg(format!("-artifact_prefix={}/{name}-", work.display()))
        .arg(&corpus)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let process = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(Run { name, process, log })
}

/// Waits for the end of a target and reports its result. Returns whether it succeeded.
fn finish(
    Run {
        name,
        mut process,
        log,
    }: Run,
) -> Result<bool> {
    let status = process
        .wait()
        .with_context(|| format!("cannot wait for {name}"))?;
    let output = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let output = String::from_utf8_lossy(&output);
    let lines: Vec<_> = output.lines().collect();
    if !status.success() {
        let shown = &lines[lines.len().saturating_sub(SHOWN)..];
        report::note(&format!("{}\n{name}: FAILED", shown.join("\n")));
        return Ok(false);
    }
    let last = lines.iter().rev().find(|line| line.starts_with("Done "));
    let last = last.map_or("done", |line| line);
    report::note(&format!("{name}: {last}"));
    Ok(true)
}

/// Copies the seeds to the corpus that a target works on. Seeds in hexadecimal are decoded.
fn plant(seeds: &Path, corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus)?;
    for seed in fs::read_dir(seeds)? {
        let path = seed?.path();
        let mut bytes = fs::read(&path)?;
        if path.extension().is_some_and(|ending| ending == HEX) {
            bytes = decode(&String::from_utf8(bytes)?)
                .with_context(|| format!("{} is not in hexadecimal", path.display()))?;
        }
        fs::write(corpus.join(path.file_stem().unwrap_or_default()), bytes)?;
    }
    Ok(())
}

/// Decodes hexadecimal bytes of two digits each; white space is ignored. `None` if the text is not valid.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16)?.try_into().ok())
        .collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| high << 4 | low;
    rest.is_empty().then(|| pairs.iter().map(byte).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, ffi::OsStr};

    use super::*;

    #[test]
    fn bytes_are_kept_as_hexadecimal() {
        assert_eq!(decode("45 00\nfF\n"), Some(vec![0x45, 0, 0xff]));
        assert_eq!(decode(""), Some(Vec::new()));
        for text in ["4", "4g", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn each_target_is_run_and_has_seeds() {
        let fuzz = workspace::root().join("fuzz");
        let named = |directory: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(fuzz.join(directory)).unwrap();
            let stem = |path: PathBuf| path.file_stem().and_then(OsStr::to_str).unwrap().to_owned();
            entries.map(|entry| stem(entry.unwrap().path())).collect()
        };
        let run: BTreeSet<_> = TARGETS.map(|(name, _)| name.to_owned()).into();
        assert_eq!(run, named("targets"));
        assert_eq!(run, named("corpus"));
        for name in run {
            let corpus = tempfile::tempdir().unwrap();
            plant(&fuzz.join("corpus").join(&name), corpus.path()).unwrap();
            assert!(fs::read_dir(corpus.path()).unwrap().count() > 2, "{name}");
        }
    }
}
