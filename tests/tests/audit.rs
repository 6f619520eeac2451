//! The record of attempts: bounded whatever is tried, exact whatever happens, and there for whoever asks.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    guest::{Guest, Options},
    listener::Listeners,
    memory::Memory,
    probe::{self, Flood},
    process::Process,
    run::{self, HANG, read_all, wait_until},
    shell::Shell,
    workspace,
    world::World,
};

/// What a second of the log may have at most.
const LINES: u64 = 200;
/// What ten seconds of the log may have at most.
const BYTES: u64 = 1_000_000;
/// The memory that the supervisor may allocate, in kB: its program, whose size is the profile's, is not counted.
const ALLOCATED: u64 = 12_000;

/// A file of destinations that are all the host, so many.
fn destinations(directory: &Path, count: u16) -> Result<String> {
    let line = |index: u16| {
        let [high, low] = index.to_be_bytes();
        format!("udp/127.{high}.{low}.1/{}\n", 1000 + index)
    };
    let file = directory.join("destinations");
    fs::write(&file, (0..count).map(line).collect::<String>())?;
    workspace::make_readable(directory)?;
    workspace::make_readable(&file)?;
    Ok(file.display().to_string())
}

/// How many attempts were made, of which all were refused.
fn refused(floods: &[Flood]) -> u64 {
    for flood in floods {
        assert_eq!(flood.ended("ECONNREFUSED"), flood.count, "{flood:?}");
    }
    floods.iter().map(|flood| flood.count).sum()
}

fn lines(text: &str) -> Result<Vec<Value>> {
    let parsed = text.lines().map(serde_json::from_str);
    Ok(parsed.collect::<Result<_, _>>()?)
}

fn count(line: &Value) -> Result<u64> {
    line["count"].as_u64().context("a line has a count")
}

/// How long a process has run, of its own and in the kernel.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("an odd stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ, on every architecture that this runs on.
    Ok(ticks / 100.0)
}

#[test]
fn a_million_attempts_a_second_are_a_few_lines_and_none_is_forgotten() -> Result<()> {
    const FOR_MS: u64 = 10_000;
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    let fence = Fence::new("million")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let supervisor = shell.started();
    let flood = format!(
        "{} --for-ms {FOR_MS} --connect-each {file}",
        probe::program()?.display()
    );
    let (cpu, start) = (cpu_seconds(supervisor)?, Instant::now());
    shell.tell(&format!("{flood} & {flood} & wait; echo done"))?;
    let mut allocated = 0;
    let mut floods: Vec<Flood> = Vec::new();
    loop {
        let line = shell.next_line()?;
        allocated = allocated.max(Memory::of(supervisor)?.anonymous);
        if line == "done" {
            break;
        }
        floods.push(serde_json::from_str(&line)?);
    }
    let (cpu, elapsed) = (
        cpu_seconds(supervisor)? - cpu,
        start.elapsed().as_secs_f64(),
    );
    let all = refused(&floods);
    assert_eq!(floods.len(), 2000);
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());

    let text = fs::read_to_string(fence.log())?;
    let lines = lines(&text)?;
    let told = lines.iter().map(count).sum::<Result<u64>>()?;
    assert_eq!(told, all);
    assert_eq!(lines.last().context("a line")?["total"], all);
    let folded = lines.iter().filter(|line| line["kind"] == "folded").count();
    assert!(folded > 0, "that many do not fit, and it is said");
    assert!(
        lines.iter().all(|line| line["kind"] != "lost"),
        "there is room for 2,000 kinds"
    );
    let mut seconds: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &lines {
        let time = line["time"].as_str().context("a time")?;
        *seconds
            .entry(time.get(..19).context("a second")?)
            .or_default() += 1;
    }
    assert!(seconds.values().all(|lines| *lines <= LINES), "{seconds:?}");
    assert!(text.len() as u64 <= BYTES, "{} bytes", text.len());
    assert!(allocated <= ALLOCATED, "{allocated} kB");
    assert!(cpu <= elapsed / 2.0, "{cpu} s of {elapsed} s");
    Ok(())
}

#[test]
fn a_flood_that_lasts_is_summed_up_by_the_minute_and_none_is_forgotten() -> Result<()> {
    const FOR_MS: u64 = 45_000;
    /// The lines of the first seconds, of less than a minute after them, and of the end.
    const ALL_LINES: usize = 20 * 95 + 2 * 95 + 95;
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    let fence = Fence::new("lasting")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let flood = format!(
        "{} --for-ms {FOR_MS} --connect-each {file}",
        probe::program()?.display()
    );
    let floods: Vec<Flood> = probe::read_lines(&shell.ask(&flood)?.join("\n"))?;
    let before_end = lines(&fs::read_to_string(fence.log())?)?.len();
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    let lines = lines(&fs::read_to_string(fence.log())?)?;
    let all = refused(&floods);
    assert_eq!(lines.iter().map(count).sum::<Result<u64>>()?, all);
    assert_eq!(lines.last().context("a line")?["total"], all);
    assert!(lines.iter().all(|line| line["kind"] != "lost"));
    // The control: a flood of the first seconds is written by the second.
    assert!(lines.len() > 10 * 50, "{}", lines.len());
    assert!(lines.len() <= ALL_LINES, "{}", lines.len());
    // What waited for the end of the minute is not lost at the end of the fence.
    assert!(lines.len() > before_end, "{before_end}");
    Ok(())
}

#[test]
fn more_kinds_than_there_is_room_for_are_counted() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 20_000)?;
    let fence = Fence::new("kinds")?.with(&["--user", "nobody"]);
    let output = fence
        .command(&world.host, probe::program()?)
        .args(["--connect-each", &file])
        .output()?;
    let all = refused(&probe::read_lines(&String::from_utf8(output.stdout)?)?);
    assert_eq!(all, 20_000);
    let lines = lines(&fs::read_to_string(fence.log())?)?;
    assert_eq!(lines.iter().map(count).sum::<Result<u64>>()?, all);
    let stderr = String::from_utf8(output.stderr)?;
    let lost = lines
        .iter()
        .filter(|line| line["kind"] == "lost")
        .map(count);
    let lost = lost.sum::<Result<u64>>()?;
    assert!(lost > 0, "{stderr}");
    assert!(
        stderr.contains(&format!("{lost} of {all} refusals are not in the log")),
        "{stderr}"
    );
    Ok(())
}

/// The record as `logs` shows it, and what it says of it.
fn logs(name: &str) -> Result<(Vec<Value>, String)> {
    let output = Command::new(qfence()?)
        .args(["logs", name, "--json"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    Ok((lines(&String::from_utf8(output.stdout)?)?, stderr))
}

#[test]
fn a_record_goes_on_where_a_killed_supervisor_stopped() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 100)?;
    let fence = Fence::new("killed")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let probe = probe::program()?.display().to_string();
    shell.tell(&format!(
        "{probe} --for-ms 6000 --connect-each {file}; echo done"
    ))?;
    // In the middle of it.
    wait_until("the record has begun", || Ok(fence.refusals()?.len() > 70))?;
    shell.kill_supervisor()?;
    let (before, _) = logs(fence.name())?;
    let mut floods: Vec<Flood> = Vec::new();
    loop {
        let line = shell.next_line()?;
        if line == "done" {
            break;
        }
        floods.push(serde_json::from_str(&line)?);
    }
    let all = refused(&floods);
    let (after, said) = logs(fence.name())?;
    assert!(
        after.len() > before.len(),
        "{} lines, then {}",
        before.len(),
        after.len()
    );
    // What was shown before is there still.
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.iter().map(count).sum::<Result<u64>>()?, all);
    assert_eq!(after.last().context("a line")?["total"], all);
    assert!(said.contains(&format!("{all} attempts: ")), "{said}");
    let (again, _) = logs(fence.name())?;
    assert_eq!(again, after);
    Ok(())
}

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
        // A last look comes before the end.
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

#[test]
fn a_log_that_was_moved_away_is_begun_anew_and_the_command_hears_nothing_of_it() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("rotate")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let moved = fence.log().with_extension("1");
    shell.attempt(&["udp/127.0.0.1/9"])?;
    fence.await_refusal(|refusal| refusal.port == 9)?;
    fs::rename(fence.log(), &moved)?;
    kill(
        Pid::from_raw(i32::try_from(shell.started())?),
        Signal::SIGUSR1,
    )?;
    wait_until("the log is begun anew", || {
        shell.attempt(&["udp/127.0.0.1/10"])?;
        Ok(fence.log().exists())
    })?;
    // The refusals of port 10 may all be in the file that was moved.
    shell.attempt(&["udp/127.0.0.1/11"])?;
    fence.await_refusal(|refusal| refusal.port == 11)?;
    // By SIGUSR1 a shell ends.
    assert_eq!(shell.ask("echo here")?, ["here"]);
    assert!(fs::read_to_string(moved)?.contains(r#""port":9,"#));
    Ok(())
}

/// Follows a record in JSON.
fn follower(name: &str) -> Result<Process> {
    let mut command = Command::new(qfence()?);
    command.args(["logs", "-f", "--json", name]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Process::spawn(command)
}

#[test]
fn whoever_follows_a_record_sees_all_of_it_or_is_told_what_is_gone() -> Result<()> {
    /// More than is kept, with the file that somebody has open who does not read on: three times 256 kB and a little.
    const ENOUGH: u64 = 1_100_000;
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    // Long lines: a flood that lasts has no more than so many lines.
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
    // One of them sleeps while both files are replaced.
    followers[1].signal(Signal::SIGSTOP)?;
    // It gets no more than 48 kB a second.
    while fs::metadata(fence.log())?.len() < ENOUGH {
        shell.ask(&format!(
            "{probe} --for-ms 5000 --connect-each {file} >/dev/null"
        ))?;
    }
    followers[1].signal(Signal::SIGCONT)?;
    thread::sleep(Duration::from_secs(2));
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    let of_log = lines(&fs::read_to_string(fence.log())?)?;
    let all = of_log.last().context("a line")?["seq"]
        .as_u64()
        .context("a number")?;
    let mut shown = Vec::new();
    for (follower, (stdout, stderr)) in followers.iter_mut().zip(read) {
        assert!(follower.wait(HANG)?.context("it ends")?.success());
        let text = String::from_utf8(stdout.recv_timeout(HANG)??)?;
        let seen = lines(&text)?
            .iter()
            .filter_map(|line| line["seq"].as_u64())
            .collect::<Vec<_>>();
        shown.push((seen, String::from_utf8(stderr.recv_timeout(HANG)??)?));
    }
    let (awake, said) = &shown[0];
    // The fence's end may come before its last line is looked at.
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
