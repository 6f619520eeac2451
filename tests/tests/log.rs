//! The log of refusals: complete to the last one, in both formats, to every target.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result};
use nix::fcntl::OFlag;
use serde_json::Value;
use tests::{
    fence::{Fence, qfence, unique_name},
    probe::{self, Flood},
    process::Process,
    run::{HANG, wait_until},
    world::World,
};

/// Runs a flood of refused attempts in a fence; the log's lines, and what qfence said.
fn flood(attempt: &str, count: u64) -> Result<(Vec<Value>, String)> {
    let world = World::new()?;
    let fence = Fence::new("flood")?.with(&["--user", "nobody"]);
    let Output {
        status,
        stdout,
        stderr,
    } = fence
        .command(&world.host, probe::program()?)
        .args(["--flood", &count.to_string(), attempt])
        .output()?;
    let stderr = String::from_utf8(stderr)?;
    assert!(status.success(), "{stderr}");
    let floods: Vec<Flood> = probe::read_lines(&String::from_utf8(stdout)?)?;
    let flood = floods.first().context("a flood has a summary")?;
    assert_eq!(flood.endings.get("ECONNREFUSED"), Some(&count), "{flood:?}");
    let text = fs::read_to_string(fence.log())?;
    let lines = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok((lines, stderr))
}

/// How many attempts the lines tell of, and how many of those of which they do not tell what they were. The
/// lines are numbered, and sum up as they say.
fn told_and_lost(lines: &[Value]) -> Result<(u64, u64)> {
    let (mut told, mut lost) = (0, 0);
    for (number, line) in (1..).zip(lines) {
        let count = line["count"].as_u64().context("a count")?;
        match line["kind"].as_str() {
            Some("attempt") => {
                assert_eq!(count, 1, "{line}");
                told += 1;
            }
            Some("repeats" | "folded") => told += count,
            Some("lost" | "dropped") => lost += count,
            _ => anyhow::bail!("an odd line: {line}"),
        }
        assert_eq!(line["seq"], number, "{line}");
        assert_eq!(line["total"], told + lost, "{line}");
    }
    Ok((told, lost))
}

#[test]
fn ten_thousand_of_a_kind_are_two_lines_or_a_few() -> Result<()> {
    for attempt in ["udp/127.0.0.1/9", "tcp/::1/9", "udp-connected/192.0.2.10/9"] {
        let (lines, stderr) = flood(attempt, 10_000)?;
        assert_eq!(told_and_lost(&lines)?, (10_000, 0), "{attempt}");
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str()).collect();
        assert_eq!(kinds[0], Some("attempt"), "{attempt}");
        assert!(
            kinds[1..].iter().all(|kind| *kind == Some("repeats")),
            "{attempt}: {kinds:?}"
        );
        assert!((2..10).contains(&kinds.len()), "{attempt}: {kinds:?}");
        assert!(!stderr.contains("not in the log"), "{stderr}");
    }
    Ok(())
}

#[test]
fn two_processes_at_once_are_counted_to_the_last() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("two")?.with(&["--user", "nobody"]);
    let probe = probe::program()?.display().to_string();
    let script =
        format!("{probe} --flood 20000 udp/127.0.0.1/9 & {probe} --flood 20000 udp/::1/9 & wait");
    let output = fence
        .command(&world.host, "sh")
        .args(["-c", &script])
        .output()?;
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(fence.log())?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(told_and_lost(&lines)?, (40_000, 0));
    Ok(())
}

#[test]
fn a_log_nobody_reads_loses_lines_and_counts_them_and_holds_nobody_up() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    // Opened for both, so that opening does not wait; full, and never read.
    let mut unread = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(&pipe)?;
    while unread.write(&[b'x'; 4096]).is_ok() {}
    let name = unique_name("unread");
    let output = world
        .host
        .command(qfence()?)
        .args(["exec", "--name", &name, "--user", "nobody", "--log"])
        .arg(&pipe)
        .arg("--")
        .arg(probe::program()?)
        .args(["--flood", "10000", "udp/127.0.0.1/9"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("10000 of 10000 refusals are not in the log"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_counted() -> Result<()> {
    let world = World::new()?;
    let name = unique_name("full");
    let output = world
        .host
        .command(qfence()?)
        .args([
            "exec",
            "--name",
            &name,
            "--user",
            "nobody",
            "--log",
            "/dev/full",
            "--",
        ])
        .arg(probe::program()?)
        .args(["--flood", "10", "udp/127.0.0.1/9"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    let told = "cannot write the log /dev/full: No space left on device";
    assert_eq!(stderr.matches(told).count(), 1, "{stderr}");
    assert!(
        stderr.contains("10 of 10 refusals are not in the log"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn a_json_line_has_exactly_the_documented_fields() -> Result<()> {
    let (lines, _) = flood("tcp/127.0.0.1/9", 1)?;
    let line = lines
        .first()
        .and_then(Value::as_object)
        .context("one line")?;
    let help = Command::new(qfence()?).args(["exec", "--help"]).output()?;
    let help = String::from_utf8(help.stdout)?;
    let documented: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Fields of a JSON log line"))
        .skip(1)
        .take_while(|line| !line.starts_with("In lines of kind folded"))
        // A line that is indented further goes on with the field before it.
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|field| !field.is_empty())
        .collect();
    // These are in lines about sockets, ports, devices and frames (`devices.rs`, `closures/`, `tap/modes.rs`).
    let mut expected: Vec<&str> = documented
        .into_iter()
        .filter(|field| {
            let of_others = [
                "socket",
                "device",
                "unix",
                "manager",
                "local",
                "local_port",
                "frame",
                "target",
            ];
            !of_others.contains(field)
        })
        .collect();
    let mut logged: Vec<&str> = line.keys().map(String::as_str).collect();
    expected.sort_unstable();
    logged.sort_unstable();
    assert_eq!(logged, expected);
    assert_eq!(
        (
            &line["verdict"],
            &line["protocol"],
            &line["destination"],
            &line["port"]
        ),
        (
            &"denied".into(),
            &"tcp".into(),
            &"127.0.0.1".into(),
            &9.into()
        )
    );
    assert_eq!(
        (&line["hook"], &line["command"]),
        (&"connect4".into(), &"probe".into())
    );
    Ok(())
}

#[test]
fn a_record_names_the_process_its_cgroup_and_the_moment() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("record")?.with(&["--user", "nobody"]);
    let before = now()?;
    let script = format!(
        "echo $$; stat -c %i $(awk '$3 == \"cgroup2\" {{print $2; exit}}' /proc/mounts)$(sed -n s,^0::.*/qfence/,/qfence/,p \
         /proc/self/cgroup); exec {} udp/127.0.0.1/9",
        probe::program()?.display()
    );
    let output = fence
        .command(&world.host, "sh")
        .args(["-c", &script])
        .output()?;
    let after = now()?;
    let stdout = String::from_utf8(output.stdout)?;
    let mut said = stdout.lines();
    let refusals = fence.refusals()?;
    let refusal = refusals.first().context("one refusal")?;
    assert_eq!(
        Some(refusal.pid.to_string().as_str()),
        said.next(),
        "{stdout}"
    );
    assert_eq!(
        Some(refusal.cgroup.to_string().as_str()),
        said.next(),
        "{stdout}"
    );
    assert_eq!(refusal.fence, fence.name());
    assert_eq!(refusal.hook, "sendmsg4");
    // RFC 3339 in UTC sorts as text, to the whole second here.
    let second = refusal.time.get(..19).context("a date and a time")?;
    assert!(refusal.time.ends_with('Z'), "{refusal:?}");
    assert!(
        before.as_str() <= second && second <= after.as_str(),
        "{before} {refusal:?} {after}"
    );
    Ok(())
}

#[test]
fn text_goes_to_standard_error_and_none_to_nowhere() -> Result<()> {
    let world = World::new()?;
    for (target, expected) in [("stderr", 1), ("none", 0)] {
        let name = unique_name("target");
        let output = world
            .host
            .command(qfence()?)
            .args([
                "exec", "--name", &name, "--user", "nobody", "--log", target, "--",
            ])
            .arg(probe::program()?)
            .arg("tcp/::ffff:127.0.0.1/22")
            .output()?;
        let stderr = String::from_utf8(output.stderr)?;
        let line = format!(" {name} denied tcp 127.0.0.1:22 connect6 pid ");
        assert_eq!(
            stderr.matches(&line).count(),
            expected,
            "{target}: {stderr}"
        );
        let end = stderr
            .lines()
            .filter(|line| line.ends_with(" rule deny host"))
            .count();
        assert_eq!(end, expected, "{target}: {stderr}");
        let outcomes: Vec<probe::ProbeResult> =
            probe::read_lines(&String::from_utf8(output.stdout)?)?;
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.failed_with("ECONNREFUSED")),
            "{outcomes:?}"
        );
    }
    Ok(())
}

#[test]
fn a_processes_name_cannot_write_to_the_log_as_it_likes() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("name")?.with(&["--user", "nobody", "--log-format", "text"]);
    let script = "printf '\\033[2Ja\\tb' > /proc/$$/comm; echo > /dev/udp/127.0.0.1/9";
    // `--log-format` is given twice then; the last one counts.
    let output = fence
        .command(&world.host, "bash")
        .args(["-c", script])
        .output()?;
    let text = fs::read_to_string(fence.log()).unwrap_or_default();
    assert!(text.contains("(\\x1b[2Ja\\x09b)"), "{text} {output:?}");
    assert_eq!(text.lines().count(), 1, "{text}");
    Ok(())
}

#[test]
fn a_processes_name_cannot_turn_a_line_round_nor_pass_for_what_comes_after_it() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("bidi")?.with(&["--user", "nobody", "--log-format", "text"]);
    let script = "printf 'a) cgroup 1 rul' > /proc/$$/comm; echo > /dev/udp/127.0.0.1/9; \
        printf '\\342\\200\\256A\\342\\201\\246B' > /proc/$$/comm; echo > /dev/udp/127.0.0.1/10; sleep 1; cat";
    let mut command = fence.command(&world.host, "bash");
    command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = Process::spawn(command)?;
    let text = || fs::read_to_string(fence.log()).unwrap_or_default();
    wait_until("both are on record", || Ok(text().lines().count() >= 2))?;
    let logs = Command::new(qfence()?)
        .args(["logs", fence.name()])
        .output()?;
    let logs = String::from_utf8(logs.stdout)?;
    let json = Command::new(qfence()?)
        .args(["logs", "--json", fence.name()])
        .output()?;
    let json = String::from_utf8(json.stdout)?;
    drop(process.child().stdin.take());
    process.wait(HANG)?.context("it does not end")?;
    for text in [text(), logs] {
        assert!(text.contains("(a\\x29 cgroup 1 rul) cgroup "), "{text}");
        assert!(
            text.contains("(\\xe2\\x80\\xaeA\\xe2\\x81\\xa6B) cgroup "),
            "{text}"
        );
        assert!(text.is_ascii(), "{text}");
    }
    // JSON has quotes of its own, and goes to terminals too.
    assert!(
        json.contains(r#""command":"a) cgroup 1 rul""#) && json.is_ascii(),
        "{json}"
    );
    Ok(())
}

#[test]
fn a_word_that_is_taken_for_standard_output_makes_no_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for target in ["-", "stdout", "json:-", "text:stdout", "json"] {
        let output = Command::new(qfence()?)
            .current_dir(dir.path())
            .args(["exec", "--log", target, "--", "true"])
            .output()?;
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let stderr = String::from_utf8(output.stderr)?;
        assert!(
            stderr.contains("for a file of that name give a path, ./"),
            "{stderr}"
        );
        assert_eq!(fs::read_dir(dir.path())?.count(), 0, "{target}");
    }
    // The controls: a file of that name, and standard output with the command's.
    for (target, is_file) in [("./stdout", true), ("/dev/stdout", false)] {
        let output = Command::new(qfence()?)
            .current_dir(dir.path())
            .args(["exec", "--name", &unique_name("stdout"), "--user", "nobody"])
            .args(["--log", target, "--"])
            .arg(probe::program()?)
            .arg("udp/127.0.0.1/9")
            .output()?;
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout)?;
        let denied = " denied udp 127.0.0.1:9 ";
        assert_eq!(stdout.contains(denied), !is_file, "{stdout}");
        let text = fs::read_to_string(dir.path().join("stdout"))?;
        assert_eq!(text.matches(denied).count(), 1, "{text}");
    }
    Ok(())
}

#[test]
fn no_message_has_characters_that_turn_a_line_round() -> Result<()> {
    let output = Command::new(qfence()?)
        .args([
            "exec",
            "--log",
            "/nonexistent/a\u{202e}\u{200b}\u{fe0f}\u{2028}\x1b[2Jb",
        ])
        .args(["--", "true"])
        .output()?;
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let stderr = String::from_utf8(output.stderr)?;
    let escaped = r"/nonexistent/a\xe2\x80\xae\xe2\x80\x8b\xef\xb8\x8f\xe2\x80\xa8\x1b[2Jb";
    assert!(stderr.contains(escaped) && stderr.is_ascii(), "{stderr}");
    Ok(())
}

#[test]
fn traces_are_printed_when_asked_for_twice_and_steps_when_once() -> Result<()> {
    let world = World::new()?;
    for (verbosity, steps, traces) in [("-v", true, false), ("-vv", true, true)] {
        let fence = Fence::new("verbose")?.with(&["--user", "nobody", verbosity]);
        let output = fence
            .command(&world.host, probe::program()?)
            .args(["udp/127.0.0.1/9", "udp/192.0.2.1/9"])
            .output()?;
        let stderr = String::from_utf8(output.stderr)?;
        let said = |text: &str| stderr.contains(text);
        assert_eq!(said("loaded the eBPF programs"), steps, "{stderr}");
        assert_eq!(
            said("trace: sendmsg4: ::ffff:127.0.0.1 port 9 "),
            traces,
            "{stderr}"
        );
        assert_eq!(
            said("trace: sendmsg4: ::ffff:192.0.2.1 port 9 "),
            traces,
            "{stderr}"
        );
    }
    Ok(())
}

/// The time as records have it, to the second.
fn now() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%S"])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
