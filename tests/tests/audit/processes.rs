//! What the record says of the process that made an attempt.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    fence::Fence,
    guest::{Guest, Options},
    listener::Listeners,
    run::{self, wait_until},
    shell::Shell,
    world::World,
};

use super::{lines, logs};

/// The host's loopback as a guest names it, and as it is.
const DIALLED: [(&str, &str); 2] = [("10.0.2.2", "127.0.0.1"), ("fec0::2", "::1")];

#[test]
fn what_a_guest_dialled_is_on_record_beside_where_it_leads() -> Result<()> {
    let world = World::new()?;
    let host = Listeners::everywhere(&world.host, 22)?;
    let fence = Fence::new("dialled")?.with(&["--user", "nobody"]);
    let attempts = DIALLED.map(|(dialled, _)| format!("udp/{dialled}/22 tcp/{dialled}/22"));
    let attempts = attempts.iter().flat_map(|both| both.split(' '));
    let attempts: Vec<&str> = attempts.collect();

    let mut free = Guest::boot(&world, &[""; 0], &Options::default())?;
    for outcome in free.probe(&attempts)? {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    drop(free);
    let heard = host.arrivals().len();

    let mut guest = Guest::boot(&world, &fence.launcher(), &Options::default())?;
    for outcome in guest.probe(&attempts)? {
        assert!(!outcome.is_reached(), "{outcome:?}");
    }
    assert_eq!(host.arrivals().len(), heard);
    let (lines, _) = logs(fence.name())?;
    for protocol in ["udp", "tcp"] {
        for (dialled, address) in DIALLED {
            let is_it = |line: &&Value| {
                line["destination"] == address && line["protocol"] == protocol && line["port"] == 22
            };
            let line = lines.iter().find(is_it).context("it is on record")?;
            assert_eq!(line["dialled"], dialled, "{line}");
            let executable = line["executable"].as_str().context("a program")?;
            assert!(executable.contains("qemu-system"), "{line}");
        }
    }
    Ok(())
}

/// The lines of a kind among those of a script's refusals in a fence, run by bash.
fn lines_of(fence: &Fence, world: &World, script: &str) -> Result<Vec<Value>> {
    let mut bash = fence.command(&world.host, "bash");
    bash.args(["-c", script]);
    let ended = run::to_end(bash)?;
    assert!(ended.code() == Some(0), "{ended:?}");
    lines(&fs::read_to_string(fence.log())?)
}

#[test]
fn whoever_executes_another_program_is_not_named_as_the_one_before() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir_in("/tmp")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let other = dir.path().join("other");
    fs::copy("/bin/bash", &other)?;
    let fence = Fence::new("another")?.with(&["--user", "nobody"]);
    let again = "for number in {1..50}; do echo >/dev/udp/127.0.0.1/9; done; sleep 2.5; true";
    // The executable is read a moment after the call: by then it must not be the other one already.
    let script = format!(
        "{{ echo >/dev/udp/127.0.0.1/9; sleep 3; exec {} -c '{again}'; }} 2>/dev/null",
        other.display()
    );
    let lines = lines_of(&fence, &world, &script)?;
    let [first, repeats @ ..] = &lines[..] else {
        panic!("no lines");
    };
    assert_eq!(first["command"], "bash", "{first}");
    assert!(first["uid"].is_u64() && first["tid"].is_u64(), "{first}");
    assert!(!repeats.is_empty(), "{lines:?}");
    for line in repeats {
        assert_eq!(line["kind"], "repeats", "{line}");
        assert_eq!(line["pid"], first["pid"], "{line}");
        assert_eq!(line["executable"], other.display().to_string(), "{line}");
        assert_eq!(line["command"], "", "{line}");
        assert!(line["uid"].is_null() && line["tid"].is_null(), "{line}");
    }
    Ok(())
}

#[test]
fn a_read_of_a_process_that_does_not_end_holds_up_neither_the_record_nor_the_end() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("no-stat")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    let attempt = |shell: &mut Shell, port: u16| -> Result<()> {
        shell.tell(&format!(
            "{{ echo >/dev/udp/127.0.0.1/{port}; }} 2>/dev/null; echo done"
        ))?;
        assert_eq!(shell.next_line()?, "done");
        wait_until("it is on record", || {
            let text = fs::read_to_string(fence.log())?;
            Ok(lines(&text)?.iter().any(|line| line["port"] == port))
        })
    };
    attempt(&mut shell, 1)?;
    // What reads the state of processes is stopped, as the kernel would have it wait.
    let supervisor = tests::job::supervisor(&fence)?;
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"))?;
    let more = fs::read_dir(format!("/proc/{supervisor}/task"))?
        .map(|task| Ok(fs::read_to_string(task?.path().join("children"))?))
        .collect::<Result<String>>()?;
    let is_reader = |pid: &&str| {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.contains("stat-reader")
    };
    let reader = [children, more].join(" ");
    let reader = reader.split_whitespace().find(is_reader);
    let reader = Pid::from_raw(reader.context("a process that reads")?.parse()?);
    kill(reader, Signal::SIGSTOP)?;
    let ended = (|| {
        attempt(&mut shell, 2)?;
        attempt(&mut shell, 3)?;
        shell.tell("exit 5")?;
        shell.wait()
    })();
    kill(reader, Signal::SIGCONT)?;
    assert_eq!(ended?.code(), Some(5));
    let all = lines(&fs::read_to_string(fence.log())?)?;
    let executable = |port: u16| {
        let line = all.iter().find(|line| line["port"] == port);
        line.map(|line| line["executable"].clone())
    };
    assert!(
        executable(1).is_some_and(|path| path.is_string()),
        "{all:?}"
    );
    assert_eq!(executable(2), Some(Value::Null), "{all:?}");
    Ok(())
}
