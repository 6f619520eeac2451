//! What the record calls a process that lies about itself.

use std::{fs, os::unix::fs::symlink, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    hostile::Hostile,
    run::{Ended, to_end, wait_until},
    shell::Shell,
    world::World,
};

use super::{QEMU, hostile};

/// The lines of a fence's log about a port.
fn about(fence: &Fence, port: u16) -> Result<Vec<Value>> {
    let text = fs::read_to_string(fence.log())?;
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let mut lines = lines.collect::<Result<Vec<_>, _>>()?;
    lines.retain(|line| line["port"] == port);
    Ok(lines)
}

/// What the log says was dialled for a port: one word for all of its lines.
fn dialled(fence: &Fence, port: u16) -> Result<Value> {
    wait_until("it is on record", || Ok(!about(fence, port)?.is_empty()))?;
    let lines = about(fence, port)?;
    Ok(lines[0]["dialled"].clone())
}

/// Runs a command in a fence that has the program do these things.
fn run(
    world: &World,
    fence: &Fence,
    hostile: &Hostile,
    words: &str,
    command: &[&str],
) -> Result<Ended> {
    let (first, rest) = command.split_first().context("a command")?;
    let mut command = fence.command(&world.host, first);
    hostile.tell(command.args(rest), words);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    Ok(ended)
}

#[test]
fn only_the_qemu_that_was_started_has_a_guest_that_dials() -> Result<()> {
    let world = World::new()?;
    let hostile = hostile(QEMU)?;
    let qemu = hostile.program().display().to_string();
    let own = "send:9 child:send:10+rest:300 udp:11 tcp:12 oob:13 send:53 rest:300";

    // It is what is taken for QEMU here. Its child is of the same file, and is not.
    let fence = Fence::new("dialled")?.with(&["--user", "nobody"]);
    run(
        &world,
        &fence,
        &hostile,
        own,
        &[&qemu, "-netdev", "user,id=n"],
    )?;
    for port in [9, 13] {
        assert_eq!(dialled(&fence, port)?, "10.0.2.2", "{port}");
    }
    for port in [10, 11, 12, 53] {
        assert_eq!(dialled(&fence, port)?, Value::Null, "{port}");
    }

    // Datagrams that may be of a network that QEMU carries in them are not said to be its guest's.
    let fence = Fence::new("dgram")?.with(&["--user", "nobody"]);
    let networks = [
        "-nic",
        "user",
        "-netdev",
        "dgram,id=m,remote.type=inet,remote.host=127.0.0.1,remote.port=9",
    ];
    run(
        &world,
        &fence,
        &hostile,
        own,
        &[&[qemu.as_str()], &networks[..]].concat(),
    )?;
    assert_eq!(dialled(&fence, 9)?, Value::Null);

    // Behind a wrapper: one that becomes QEMU, and one that makes a process for it.
    for wrapper in [&["env", "-u", "NOTHING"][..], &["timeout", "60"]] {
        let fence = Fence::new("wrapped")?.with(&["--user", "nobody"]);
        run(
            &world,
            &fence,
            &hostile,
            own,
            &[wrapper, &[qemu.as_str()]].concat(),
        )?;
        assert_eq!(dialled(&fence, 9)?, "10.0.2.2", "{wrapper:?}");
        assert_eq!(dialled(&fence, 10)?, Value::Null, "{wrapper:?}");
    }

    // And one that was started by what is no QEMU may call itself what it likes.
    let fence = Fence::new("so-called")?.with(&["--user", "nobody"]);
    run(
        &world,
        &fence,
        &hostile,
        own,
        &["sh", "-c", &format!("{qemu}; :")],
    )?;
    assert_eq!(dialled(&fence, 9)?, Value::Null);
    let line = &about(&fence, 9)?[0];
    assert_eq!(line["executable"], qemu);
    Ok(())
}

#[test]
fn a_process_whose_first_thread_has_ended_is_known_as_well() -> Result<()> {
    let world = World::new()?;
    let hostile = hostile("headless")?;
    let fence = Fence::new("headless")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    shell.ask(&hostile.line("send:9 rest:2000"))?;
    shell.ask(&hostile.line("headless:10"))?;
    wait_until("both are on record", || {
        Ok(!about(&fence, 9)?.is_empty() && !about(&fence, 10)?.is_empty())
    })?;
    // The control is the one with all of its threads.
    let (whole, headless) = (&about(&fence, 9)?[0], &about(&fence, 10)?[0]);
    assert_ne!(headless["pid"], headless["tid"], "{headless}");
    let program = hostile.program().display().to_string();
    for line in [whole, headless] {
        assert_eq!(line["executable"], program, "{line}");
        assert_eq!(line["cgroup_path"], whole["cgroup_path"], "{line}");
        assert!(line["netns"].is_u64(), "{line}");
    }
    assert_eq!(headless["netns"], whole["netns"]);
    Ok(())
}

#[test]
fn whoever_goes_on_with_a_record_knows_the_qemu_too() -> Result<()> {
    let world = World::new()?;
    let hostile = hostile(QEMU)?;
    let fence = Fence::new("orphan")?.with(&["--user", "nobody"]);
    // A link of another name, which is resolved.
    let link = hostile.directory().join("vm");
    symlink(hostile.program(), &link)?;
    let go = hostile.directory().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::from_bits_truncate(0o644))?;
    let mut command = fence.command(&world.host, &link);
    hostile.tell(
        &mut command,
        "send:9 rest:100 wait send:10 child:send:11+rest:1000 rest:1000",
    );
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut supervisor = tests::process::Process::spawn(command)?;
    fence.await_refusal(|refusal| refusal.port == 9)?;
    let input = supervisor.child().stdin.take().context("a pipe")?;
    supervisor.signal(nix::sys::signal::Signal::SIGKILL)?;
    nix::sys::wait::waitid(
        nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(i32::try_from(supervisor.id())?)),
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
    )?;
    // While it is read the process is there: the reader is started first.
    let mut logs = Command::new(qfence()?);
    logs.args(["logs", "-f", "--json", fence.name()]);
    let ended = thread::spawn(move || to_end(logs));
    thread::sleep(Duration::from_secs(1));
    drop(input);
    let ended = ended
        .join()
        .map_err(|_| anyhow::anyhow!("a thread has failed"))??;
    let of = |port: u16| -> Result<Value> {
        let lines = ended.stdout.lines().map(serde_json::from_str::<Value>);
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let line = lines.into_iter().find(|line| line["port"] == port);
        Ok(line.with_context(|| format!("{port}: {ended:?}"))?["dialled"].clone())
    };
    assert_eq!(of(9)?, "10.0.2.2");
    assert_eq!(of(10)?, "10.0.2.2");
    assert_eq!(of(11)?, Value::Null);
    Ok(())
}

#[test]
fn what_a_fence_is_said_to_run_is_short() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("long")?.with(&["--user", "nobody"]);
    let long = "x".repeat(100_000);
    let mut command = fence.command(&world.host, "sh");
    command.args(["-c", "exec sh", &long, &long, &long]);
    let mut shell = Shell::start(command)?;
    for options in [&["ps"][..], &["ps", "--json"]] {
        let output = Command::new(qfence()?).args(options).output()?;
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout)?;
        let line = text.lines().find(|line| line.contains(fence.name()));
        let line = line.context("it is listed")?;
        assert!(line.contains("xxx") && line.contains('…'), "{options:?}");
        assert!(
            !line.contains(&"x".repeat(4097)),
            "{options:?}: {}",
            line.len()
        );
    }
    let described = fs::read(format!("/run/qfence/{}.json", fence.name()))?;
    assert!(described.len() < 5000, "{} bytes", described.len());
    // The command itself has all of its words.
    let pid = shell.pid()?;
    assert!(!fs::read(format!("/proc/{pid}/cmdline"))?.is_empty());
    Ok(())
}
