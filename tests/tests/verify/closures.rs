//! The second table of `verify`: what is promised of the ways out that are no packets is true, and a fence of which it is
//! not is found out.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tests::{
    fence::{qfence, verifier},
    run::to_end,
    workspace,
};

use super::{Report, verify};

/// The ways out that are no packets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Closures {
    rows: Vec<Closure>,
    strict_error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closure {
    attempt: String,
    without: String,
    default: Cell,
    strict: Option<Cell>,
    mechanism: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    outcome: String,
    verdict: String,
}

impl Closures {
    /// The way out of this name.
    fn of(&self, attempt: &str) -> Result<&Closure> {
        let mut rows = self.rows.iter();
        let row = rows.find(|row| row.attempt == attempt);
        row.with_context(|| format!("no attempt {attempt:?}"))
    }
}

/// Ways out that a fence closes without options, wherever the kernel has what that takes (Linux 6.12).
const CLOSED: [(&str, &str); 13] = [
    ("connect to the user's bus", "mounts"),
    ("the same, by a symbolic link", "mounts"),
    ("the same, by a relative path", "mounts"),
    ("the same, by /proc/PID/root", "mounts+landlock"),
    ("connect to the user's systemd", "mounts"),
    ("connect to the system's bus", "mounts"),
    ("connect to Docker", "mounts"),
    ("read /proc/PID/environ", "landlock"),
    ("list /proc/PID/root", "landlock"),
    ("signal it", "landlock"),
    ("signal its process group", "landlock"),
    ("signal it by a pidfd", "landlock"),
    ("signal it as owner of a socket", "landlock"),
];

/// What commands do that have a desktop, or sandboxes of their own.
const USEFUL: [&str; 5] = [
    "connect to the desktop",
    "mount in it",
    "append to ~/.bashrc",
    "listen on a port",
    "trace a child",
];

/// Checks that all that is promised of the ways out is true.
pub(crate) fn check(closures: &Closures) -> Result<()> {
    let Closures { rows, strict_error } = closures;
    assert_eq!(strict_error, &None);
    for row in rows {
        for cell in [Some(&row.default), row.strict.as_ref()] {
            let cell = cell.with_context(|| format!("no --strict: {row:?}"))?;
            match cell.verdict.as_str() {
                "stopped" => {
                    assert_eq!(row.without, "done", "{row:?}");
                    assert_ne!(cell.outcome, "done", "{row:?}");
                }
                "works" => assert_eq!(cell.outcome, "done", "{row:?}"),
                "untried" => assert_ne!(row.without, "done", "{row:?}"),
                "open" => {}
                _ => bail!("{row:?}"),
            }
        }
    }
    for (attempt, mechanism) in CLOSED {
        let row = closures.of(attempt)?;
        assert_eq!(row.mechanism.as_deref(), Some(mechanism), "{row:?}");
        assert_eq!(row.default.verdict, "stopped", "{row:?}");
    }
    for attempt in USEFUL {
        let row = closures.of(attempt)?;
        assert_eq!(row.default.verdict, "works", "{row:?}");
    }
    Ok(())
}

#[test]
fn ways_out_that_are_no_packets_are_closed() -> Result<()> {
    let (ended, report) = verify(Command::new(qfence()?), &["--closures"])?;
    assert!(report.holds, "{report:#?}");
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(report.attempts.is_empty() && report.must_work.is_empty());
    check(&report.closures)?;
    let mut command = Command::new(qfence()?);
    command.args(["verify", "--closures"]);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for row in &report.closures.rows {
        let line = format!(" {}  ", row.attempt);
        assert!(ended.stdout.contains(&line), "{line}: {}", ended.stdout);
    }
    assert!(
        ended.stdout.contains("\nThe fence holds: "),
        "{}",
        ended.stdout
    );
    Ok(())
}

/// The ways out in fences of a `qfence-user` that differs: a shell script gets the arguments of `exec`, and runs
/// `exec "$qfence" …`.
fn closures_of(script: &str) -> Result<(Option<i32>, Report)> {
    let dir = tempfile::tempdir()?;
    let beside = dir.path().join("qfence-verify");
    fs::copy(verifier()?, &beside)?;
    let program = dir.path().join("qfence-user");
    let script = format!("#!/bin/sh\nqfence={}\n{script}\n", qfence()?.display());
    fs::write(&program, script)?;
    workspace::make_readable(&program)?;
    let mut command = Command::new(&beside);
    command.args(["--closures", "--json"]);
    let ended = to_end(command)?;
    let report = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    Ok((ended.code(), report))
}

#[test]
fn a_way_out_that_is_open_is_found_out() -> Result<()> {
    for (option, passed, stopped) in [
        (
            "--allow-foreign-netns",
            &[
                "signal it",
                "read /proc/PID/environ",
                "the same, by /proc/PID/root",
            ][..],
            &["connect to the user's bus", "connect to Docker"][..],
        ),
        (
            "--allow-bus",
            &["connect to the user's bus", "connect to Docker"],
            &["signal it", "the same, by /proc/PID/root"],
        ),
    ] {
        // With --strict the option would be an error.
        let script = format!(
            "case \"$*\" in *--strict*) exec \"$qfence\" \"$@\";; esac
            shift; exec \"$qfence\" exec {option} \"$@\""
        );
        let (code, report) = closures_of(&script)?;
        assert_eq!(code, Some(1), "{option}");
        assert!(!report.holds);
        for (attempts, verdict) in [(passed, "passed"), (stopped, "stopped")] {
            for attempt in attempts {
                let row = report.closures.of(attempt)?;
                assert_eq!(row.default.verdict, verdict, "{option}: {row:?}");
                let strict = row.strict.as_ref().context("a start with --strict")?;
                assert_eq!(strict.verdict, "stopped", "{option}: {row:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_works_no_more_in_a_fence_is_found_out() -> Result<()> {
    let script = "unset QFENCE_VERIFY_SECRET; exec \"$qfence\" \"$@\"";
    let (code, report) = closures_of(script)?;
    assert_eq!(code, Some(1));
    let row = report.closures.of("read a variable of the caller")?;
    assert_eq!(
        (row.without.as_str(), row.default.verdict.as_str()),
        ("done", "broken")
    );
    // The others are as they were.
    assert_eq!(report.closures.of("signal it")?.default.verdict, "stopped");
    Ok(())
}

#[test]
fn where_strict_starts_nothing_the_report_has_the_reason() -> Result<()> {
    let script =
        "case \"$*\" in *--strict*) echo 'qfence: error: it is too old' >&2; exit 125;; esac
        exec \"$qfence\" \"$@\"";
    let (code, report) = closures_of(script)?;
    assert_eq!(code, Some(0));
    assert_eq!(
        report.closures.strict_error.as_deref(),
        Some("it is too old")
    );
    assert!(report.closures.rows.iter().all(|row| row.strict.is_none()));
    assert_eq!(report.closures.of("signal it")?.default.verdict, "stopped");
    Ok(())
}
