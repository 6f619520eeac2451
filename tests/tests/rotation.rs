//! Log files that are begun anew when they are full: bounded however long a flood lasts, and in a directory of another
//! user too.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::{qfence, unique_name},
    namespace::NOBODY,
    probe::{self, Flood},
    run::{to_end, wait_until, without_sudo},
    shell::Shell,
    workspace,
    world::World,
};

/// The size that a file of the tests may have, in bytes.
const MAX: u64 = 64_000;

/// A shell of nobody in a fence with a log.
fn start(world: &World, log: &str) -> Result<Shell> {
    let mut command = world.host.command(qfence()?);
    command.args(["exec", "--name", &unique_name("rotation")]);
    command.args(["--user", "nobody", "--log", log, "--", "sh"]);
    without_sudo(&mut command);
    Shell::start(command)
}

/// Tries 500 ports of the host's, for so long; the number of attempts, all of which are refused.
fn flood(shell: &mut Shell, directory: &Path, ms: u64) -> Result<u64> {
    let file = directory.join("destinations");
    let ports = (1000..1500).map(|port| format!("udp/127.0.0.1/{port}\n"));
    fs::write(&file, ports.collect::<String>())?;
    workspace::make_readable(&file)?;
    let probe = probe::program()?.display().to_string();
    let answer = shell.ask(&format!(
        "{probe} --for-ms {ms} --connect-each {}",
        file.display()
    ))?;
    let floods: Vec<Flood> = probe::read_lines(&answer.join("\n"))?;
    let refused = |flood: &Flood| flood.ended("ECONNREFUSED");
    Ok(floods.iter().map(refused).sum())
}

/// The lines of a log and of the earlier ones that are kept, oldest first.
fn kept(log: &Path, keep: u32) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for number in (0..=keep).rev() {
        let path = match number {
            0 => log.to_owned(),
            number => format!("{}.{number}", log.display()).into(),
        };
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        assert!(text.len() as u64 <= MAX, "{}", path.display());
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        for line in text.lines() {
            lines.push(serde_json::from_str(line).with_context(|| line.to_owned())?);
        }
    }
    Ok(lines)
}

#[test]
fn a_flood_fills_no_more_than_the_files_may_have() -> Result<()> {
    let (world, dir) = (World::new()?, tempfile::tempdir()?);
    workspace::make_readable(dir.path())?;
    let logs = dir.path().join("logs");
    fs::create_dir(&logs)?;
    // Its path has a comma.
    let log = logs.join("a,b=c.json");
    let mut shell = start(
        &world,
        &format!("json:{},max={}k,keep=2", log.display(), MAX / 1000),
    )?;
    fs::set_permissions(&log, fs::Permissions::from_mode(0o640))?;
    let all = flood(&mut shell, dir.path(), 8000)?;
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0);
    let mut names: Vec<_> = fs::read_dir(&logs)?
        .map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()))
        .collect::<Result<_>>()?;
    names.sort();
    assert_eq!(names, ["a,b=c.json", "a,b=c.json.1", "a,b=c.json.2"]);
    let lines = kept(&log, 2)?;
    let seq = |line: &Value| line["seq"].as_u64().context("a number");
    let first = seq(lines.first().context("a line")?)?;
    assert!(first > 1, "nothing was removed: {first}");
    for (number, line) in (first..).zip(&lines) {
        assert_eq!(seq(line)?, number, "{line}");
    }
    assert_eq!(lines.last().context("a line")?["total"], all);
    // Each file is as readable as the first one was made.
    assert_eq!(fs::metadata(&log)?.permissions().mode() & 0o777, 0o640);
    assert!(
        !shell.stderr().contains("not in the log"),
        "{}",
        shell.stderr()
    );
    Ok(())
}

#[test]
fn what_is_no_log_is_left_alone_and_what_is_missing_is_said() -> Result<()> {
    let (world, dir) = (World::new()?, tempfile::tempdir()?);
    workspace::make_readable(dir.path())?;
    // The user of the command can do anything in it.
    let logs = dir.path().join("logs");
    fs::create_dir(&logs)?;
    chown(&logs, Some(NOBODY.uid), Some(NOBODY.gid))?;
    let (log, roots) = (logs.join("log"), dir.path().join("roots"));
    fs::write(&roots, "root's")?;
    symlink(&roots, logs.join("log.1"))?;
    let mut shell = start(
        &world,
        &format!("json:{},max={}k,keep=1", log.display(), MAX / 1000),
    )?;
    flood(&mut shell, dir.path(), 4000)?;
    wait_until("it is said that the log cannot be begun anew", || {
        Ok(shell.stderr().contains("log.1 is no regular file"))
    })?;
    assert_eq!(fs::read_to_string(&roots)?, "root's");
    assert!(fs::metadata(&log)?.len() <= MAX);
    // The control: without it, the log goes on, and tells of what it lacks.
    shell.ask(&format!("rm -f {}/log.1", logs.display()))?;
    flood(&mut shell, dir.path(), 1000)?;
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0);
    let lines = kept(&log, 1)?;
    let dropped: u64 = lines
        .iter()
        .filter(|line| line["kind"] == "dropped")
        .filter_map(|line| line["count"].as_u64())
        .sum();
    assert!(dropped > 0, "{}", shell.stderr());
    let said = shell.stderr();
    assert!(said.contains(" refusals are not in the log "), "{said}");
    assert!(fs::symlink_metadata(logs.join("log.1"))?.is_file());
    assert_eq!(fs::read_to_string(&roots)?, "root's");
    Ok(())
}

#[test]
fn an_option_that_is_wrong_or_without_a_file_is_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (log, why) in [
        ("a,max=10", "too small"),
        ("a,keep=100", "no number from 0 to 99"),
        ("a,size=100M", "no option size"),
        ("stderr,max=1M", "only a file"),
        ("/dev/null,max=1M", "is no regular file"),
    ] {
        let mut command = Command::new(qfence()?);
        command.current_dir(dir.path());
        command.args(["exec", "--log", log, "--", "true"]);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(125), "{log}: {ended:?}");
        assert!(ended.stderr.contains(why), "{log}: {ended:?}");
        assert_eq!(fs::read_dir(dir.path())?.count(), 0, "{log}");
    }
    Ok(())
}
