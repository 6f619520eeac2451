//! `logs -f` prints each new line, reports lines that are gone, and ends with the fence or its reader.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    probe,
    process::Process,
    run::{HANG, read_all, wait_until},
    shell::Shell,
    workspace,
    world::World,
};

use super::{destinations, logs};

#[test]
fn logs_follow_a_fence_to_its_end_whoever_reads() -> Result<()> {
    let world = World::new()?;
    for orphaned in [false, true] {
        let fence = Fence::new("follow")?.with(&["--user", "nobody"]);
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        shell.attempt(&["udp/127.0.0.1/9"])?;
        fence.await_refusal(|refusal| refusal.port == 9)?;
        if orphaned {
            shell.kill_supervisor()?;
        }
        let mut command = Command::new(qfence()?);
        command.args(["logs", "-f", "--dest", "127.0.0.1:10", fence.name()]);
        command.stdout(Stdio::piped());
        let mut follower = Process::spawn(command)?;
        let stdout = read_all(follower.child().stdout.take().context("a pipe")?);
        shell.attempt(&["udp/127.0.0.1/9", "udp/127.0.0.1/10", "udp/::1/10"])?;
        wait_until("it is on record", || {
            let (lines, _) = logs(fence.name())?;
            Ok(lines.iter().any(|line| line["port"] == 10))
        })?;
        thread::sleep(Duration::from_millis(500));
        let ended = Command::new(qfence()?)
            .args(["rm", fence.name()])
            .status()?;
        assert!(ended.success());
        let status = follower.wait(HANG)?.context("it ends with the fence")?;
        assert!(status.success());
        let text = String::from_utf8(stdout.recv_timeout(HANG)??)?;
        let shown: Vec<&str> = text.lines().collect();
        assert_eq!(shown.len(), 1, "orphaned: {orphaned}: {text}");
        assert!(shown[0].contains("denied udp 127.0.0.1:10 "), "{text}");
    }
    Ok(())
}

/// The lines of a later fence of the same name have the same numbers.
#[test]
fn whoever_follows_a_fence_is_told_that_another_has_its_name() -> Result<()> {
    let world = World::new()?;
    for orphaned in [false, true] {
        let fence = Fence::new("again")?.with(&["--user", "nobody"]);
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        shell.attempt(&["udp/127.0.0.1/11", "udp/127.0.0.1/12"])?;
        fence.await_refusal(|refusal| refusal.port == 12)?;
        if orphaned {
            shell.kill_supervisor()?;
        }
        let mut follower = follower(fence.name())?;
        let stdout = follower.child().stdout.take().context("a pipe")?;
        let mut stdout = BufReader::new(stdout).lines();
        let mut next = || stdout.next().transpose();
        for _ in 0..2 {
            next()?.context("a line of the first fence")?;
        }
        // It looks ten times a second, and is not to see that there is none in between.
        follower.signal(Signal::SIGSTOP)?;
        let ended = Command::new(qfence()?)
            .args(["rm", fence.name()])
            .status()?;
        assert!(ended.success());
        let mut other = Shell::start(fence.command(&world.host, "sh"))?;
        other.attempt(&["udp/127.0.0.1/21", "udp/127.0.0.1/22", "udp/127.0.0.1/23"])?;
        fence.await_refusal(|refusal| refusal.port == 23)?;
        follower.signal(Signal::SIGCONT)?;
        let status = follower
            .wait(HANG)?
            .context("it ends with the first fence")?;
        assert!(status.success());
        // None of the other one's, whose third line has a new number.
        assert_eq!(next()?, None, "orphaned: {orphaned}");
        let mut said = String::new();
        let mut stderr = follower.child().stderr.take().context("a pipe")?;
        stderr.read_to_string(&mut said)?;
        assert!(
            said.contains("another fence has the name now"),
            "orphaned: {orphaned}: {said}"
        );
        // The control: whoever begins then sees all lines of the other one.
        let (lines, _) = logs(fence.name())?;
        let ports: Vec<_> = lines.iter().map(|line| line["port"].as_u64()).collect();
        assert_eq!(ports, [Some(21), Some(22), Some(23)]);
        other.tell("exit 0")?;
        assert_eq!(other.wait_for_code()?, 0);
    }
    Ok(())
}

/// Starts `logs -f --json`.
fn follower(name: &str) -> Result<Process> {
    let mut command = Command::new(qfence()?);
    command.args(["logs", "-f", "--json", name]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Process::spawn(command)
}

#[test]
fn whoever_follows_a_record_sees_all_of_it_or_is_told_what_is_gone() -> Result<()> {
    /// More bytes than are kept: three files of 256 kB, one of them the file that the stopped follower has open.
    const ENOUGH: u64 = 1_100_000;
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    // The path of the executable makes the lines long. The number of lines of a flood is limited.
    let long = ["a", "b"].map(|letter| letter.repeat(200));
    let mut place = dir.path().to_owned();
    for name in &long {
        place.push(name);
        fs::create_dir(&place)?;
        workspace::make_readable(&place)?;
    }
    let probe = place.join("probe");
    fs::copy(probe::program()?, &probe)?;
    workspace::make_readable(&probe)?;
    let probe = probe.display().to_string();
    let fence = Fence::new("generations")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    shell.attempt(&["udp/127.0.0.1/9"])?;
    fence.await_refusal(|refusal| refusal.port == 9)?;
    let mut followers = [follower(fence.name())?, follower(fence.name())?];
    let mut read = Vec::new();
    for follower in &mut followers {
        let child = follower.child();
        let stdout = read_all(child.stdout.take().context("a pipe")?);
        let stderr = read_all(child.stderr.take().context("a pipe")?);
        read.push((stdout, stderr));
    }
    thread::sleep(Duration::from_secs(1));
    // One follower is stopped while both files are replaced.
    followers[1].signal(Signal::SIGSTOP)?;
    // The log grows by at most 48 kB per second.
    while fs::metadata(fence.log())?.len() < ENOUGH {
        shell.ask(&format!(
            "{probe} --for-ms 5000 --connect-each {file} >/dev/null"
        ))?;
    }
    followers[1].signal(Signal::SIGCONT)?;
    thread::sleep(Duration::from_secs(2));
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    let of_log = fence.lines()?;
    let all = of_log.last().context("a line")?["seq"]
        .as_u64()
        .context("a number")?;
    let mut shown = Vec::new();
    for (follower, (stdout, stderr)) in followers.iter_mut().zip(read) {
        assert!(follower.wait(HANG)?.context("it ends")?.success());
        let text = String::from_utf8(stdout.recv_timeout(HANG)??)?;
        let seen = probe::read_lines::<Value>(&text)?
            .iter()
            .filter_map(|line| line["seq"].as_u64())
            .collect::<Vec<_>>();
        shown.push((seen, String::from_utf8(stderr.recv_timeout(HANG)??)?));
    }
    let (awake, said) = &shown[0];
    // The fence may end before the follower has read the last lines.
    assert!(awake.iter().copied().eq(1..=awake.len() as u64), "{said}");
    assert!(awake.len() as u64 + 100 > all, "{} of {all}", awake.len());
    assert!(!said.contains(" are gone"), "{said}");
    let (asleep, said) = &shown[1];
    let last = asleep.last().context("a line")?;
    let gone = last - asleep.len() as u64;
    assert!(
        gone > 0,
        "nothing is gone of {all}: the record is larger than it was"
    );
    assert!(
        said.contains(&format!("{gone} lines of the record, with ")),
        "{gone}: {said}"
    );
    Ok(())
}

/// The number of bytes that a process has read so far.
fn bytes_read(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    Ok(read.context("rchar")?.parse()?)
}

#[test]
fn whoever_follows_reads_new_lines_alone() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    let fence = Fence::new("new-lines")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let probe = probe::program()?.display().to_string();
    while fs::metadata(fence.log()).map_or(0, |log| log.len()) < 150_000 {
        shell.ask(&format!(
            "{probe} --for-ms 1000 --connect-each {file} >/dev/null"
        ))?;
    }
    let mut follower = follower(fence.name())?;
    let pid = follower.child().id();
    let stdout = read_all(follower.child().stdout.take().context("a pipe")?);
    // The control: it reads what there is.
    wait_until("the record is read", || Ok(bytes_read(pid)? > 100_000))?;
    thread::sleep(Duration::from_secs(1));
    let before = bytes_read(pid)?;
    thread::sleep(Duration::from_secs(2));
    let read = bytes_read(pid)? - before;
    assert!(
        read < 100_000,
        "{read} bytes in two seconds without an attempt"
    );
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    assert!(follower.wait(HANG)?.context("it ends")?.success());
    assert!(stdout.recv_timeout(HANG)??.len() > 100_000);
    Ok(())
}

#[test]
fn whoever_follows_ends_when_nobody_reads_what_it_prints() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("unread")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mut follower = follower(fence.name())?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!(follower.wait(Duration::ZERO)?, None, "it follows");
    drop(follower.child().stdout.take());
    let status = follower
        .wait(HANG)?
        .context("it ends although nothing is tried")?;
    assert!(status.success());
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0);
    Ok(())
}
