//! Logs that fail: the disk is full, or standard error is made one that does not wait. What is missing is said in the log
//! once it takes lines again, and no line is spoiled.

use std::{
    fs,
    io::{Read as _, Write as _, pipe},
    ops::Range,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::Value;
use tests::{
    fence::{qfence, unique_name},
    mounts::{host_with, mount_new},
    namespace::Namespace,
    private::Private,
    run::{to_end, wait_until, without_sudo},
    shell::Shell,
};

/// Words for bash that try so many ports of the host's, from one on.
fn tries(first: u32, count: u32) -> String {
    let last = first + count - 1;
    format!(
        "for port in $(seq {first} {last}); do echo >/dev/udp/127.0.0.1/$port; done 2>/dev/null"
    )
}

/// Takes all room that is left on a disk.
fn fill(path: &str) -> Result<()> {
    let file = fs::File::create(path)?;
    let filled = std::io::copy(&mut std::io::repeat(b'x'), &mut &file);
    assert!(filled.is_err(), "the disk is not full");
    Ok(())
}

/// How many attempts the lines of a log tell of, and how many of these it says are missing. Of each line the sum is that
/// of the line before and its count.
fn sums(lines: &[Value]) -> Result<(u64, u64)> {
    let (mut all, mut dropped) = (0, 0);
    for line in lines {
        let count = line["count"].as_u64().context("a count")?;
        all += count;
        if line["kind"] == "dropped" {
            dropped += count;
        }
        assert_eq!(line["total"], all, "{line}");
    }
    Ok((all, dropped))
}

fn start(host: &Namespace, name: &str, log: &str) -> Result<Shell> {
    start_with(host, name, log, &[])
}

fn start_with(host: &Namespace, name: &str, log: &str, options: &[&str]) -> Result<Shell> {
    let mut command = host.command(qfence()?);
    command.args(["exec", "--name", name, "--user", "nobody"]);
    command
        .args(["--log", log])
        .args(options)
        .args(["--", "bash"]);
    without_sudo(&mut command);
    Shell::start(command)
}

#[test]
fn a_log_on_a_full_disk_says_what_is_missing_once_there_is_room() -> Result<()> {
    let host = host_with(|| {
        mount_new("tmpfs", "/mnt", Some("size=32k"))?;
        fs::write("/mnt/log", "")?;
        fs::write("/mnt/filler", vec![b'x'; 24 * 1024])?;
        Ok(())
    })?;
    let mut shell = start(&host, &unique_name("full"), "json:/mnt/log")?;
    // More than two pages.
    shell.ask(&tries(1000, 40))?;
    wait_until("the disk is full", || {
        Ok(shell.stderr().contains("cannot write the log"))
    })?;
    // All of them are over with.
    thread::sleep(Duration::from_secs(2));
    host.run(|| Ok(fs::remove_file("/mnt/filler")?))?;
    shell.ask(&tries(2000, 3))?;
    shell.tell("exit")?;
    assert_eq!(shell.wait_for_code()?, 0);
    let said = shell.stderr();
    let text = host.run(|| Ok(fs::read_to_string("/mnt/log")?))?;
    let (whole, spoiled): (Vec<_>, Vec<_>) = text
        .lines()
        .map(serde_json::from_str::<Value>)
        .partition(Result::is_ok);
    let lines: Vec<Value> = whole.into_iter().flatten().collect();
    let (all, dropped) = sums(&lines)?;
    assert_eq!(all, 43, "{text}");
    assert!((10..40).contains(&dropped), "{text}");
    // What was begun has an end of its own.
    assert!(spoiled.len() <= 1, "{text}");
    let ports: Vec<_> = lines
        .iter()
        .filter_map(|line| line["port"].as_u64())
        .collect();
    assert!(
        [1000, 2000, 2001, 2002]
            .iter()
            .all(|port| ports.contains(port)),
        "{text}"
    );
    // It is not said to have what it has not.
    let missing = format!("{dropped} of 43 refusals are not in the log /mnt/log");
    assert!(said.contains(&missing), "{said}");
    Ok(())
}

#[test]
fn lines_about_what_was_let_through_are_not_missing_in_silence() -> Result<()> {
    let host = host_with(|| {
        mount_new("tmpfs", "/mnt", Some("size=32k"))?;
        fs::write("/mnt/log", "")?;
        fs::write("/mnt/filler", vec![b'x'; 24 * 1024])?;
        Ok(())
    })?;
    let options = ["--log-allowed", "--allow", "udp:127.0.0.1"];
    let mut shell = start_with(&host, &unique_name("let"), "json:/mnt/log", &options)?;
    // More than two pages. There is no refusal.
    shell.ask(&tries(1000, 40))?;
    wait_until("the disk is full", || {
        Ok(shell.stderr().contains("cannot write the log"))
    })?;
    // All lines are over with: there are 20 a second.
    thread::sleep(Duration::from_secs(3));
    host.run(|| Ok(fs::remove_file("/mnt/filler")?))?;
    shell.ask(&tries(2000, 3))?;
    shell.tell("exit")?;
    assert_eq!(shell.wait_for_code()?, 0);
    let text = host.run(|| Ok(fs::read_to_string("/mnt/log")?))?;
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let validator = crate::schema::validator()?;
    let (mut seq, mut dropped) = (0, 0);
    for line in &lines {
        if let Err(error) = validator.validate(line) {
            panic!("{line}: {error}");
        }
        if line["kind"] == "dropped" {
            let lines = line["lines"].as_u64().context("lines")?;
            seq += lines;
            dropped += lines;
        } else {
            seq += 1;
        }
        assert_eq!((&line["seq"], &line["count"]), (&seq.into(), &0.into()));
    }
    assert!(dropped > 5, "{text}");
    // The order of those that are let through together is any.
    let count = |ports: Range<u64>| {
        let port = |line: &&Value| {
            line["port"]
                .as_u64()
                .is_some_and(|port| ports.contains(&port))
        };
        lines.iter().filter(port).count()
    };
    assert!(count(1000..1040) > 0, "{text}");
    assert_eq!(count(2000..2003), 3, "{text}");
    let missing = format!("{dropped} lines about no refusal are not in the log");
    assert!(shell.stderr().contains(&missing), "{}", shell.stderr());
    Ok(())
}

#[test]
fn a_record_whose_next_file_could_not_be_made_goes_on_and_says_what_is_missing() -> Result<()> {
    let machine = Private::new()?;
    let host = machine.namespace();
    let name = unique_name("inodes");
    host.run(|| mount_new("tmpfs", "/run", Some("size=8m,nr_inodes=200")))?;
    let mut shell = start(host, &name, "none")?;
    shell.ask(&tries(1000, 3))?;
    let [kept, old] = [".log", ".log.1"].map(|end| format!("/run/qfence/{name}{end}"));
    let read = |path: &str| host.run(|| Ok(fs::read_to_string(path).unwrap_or_default()));
    wait_until("three are on record", || {
        Ok(read(&kept)?.lines().count() == 3)
    })?;
    let junk = |number: u32| format!("/run/junk{number}");
    let made = host.run(|| {
        let made = (0..300).take_while(|number| fs::File::create(junk(*number)).is_ok());
        Ok(u32::try_from(made.count())?)
    })?;
    assert!(made < 300, "there are still inodes");
    // The control: nothing is missing as long as the first file has room.
    let is_missing = |text: &str| text.contains(r#""kind":"dropped""#);
    let mut first = 2000;
    wait_until("the next file cannot be made", || {
        shell.ask(&tries(first, 60))?;
        first += 60;
        thread::sleep(Duration::from_millis(500));
        Ok(shell.stderr().contains(&format!("cannot write {kept}")))
    })?;
    assert!(!is_missing(&read(&old)?));
    assert_eq!(read(&kept)?, "");
    host.run(|| {
        for number in 0..made {
            fs::remove_file(junk(number))?;
        }
        Ok(())
    })?;
    shell.ask(&tries(50_000, 3))?;
    wait_until(
        "it goes on",
        || Ok(read(&kept)?.contains(r#""port":50002"#)),
    )?;
    let mut logs = machine.qfence()?;
    logs.args(["logs", "--json", &name]);
    let logs = to_end(logs)?;
    let lines: Vec<Value> = logs
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let (all, dropped) = sums(&lines)?;
    assert_eq!(all, u64::from(first - 2000 + 6), "{}", logs.stdout);
    assert!(dropped > 0 && is_missing(&read(&kept)?), "{}", logs.stdout);
    shell.tell("exit")?;
    assert_eq!(shell.wait_for_code()?, 0);
    Ok(())
}

#[test]
fn the_record_on_a_full_disk_has_whole_lines_and_says_what_is_missing() -> Result<()> {
    let machine = Private::new()?;
    let host = machine.namespace();
    let name = unique_name("fullrun");
    host.run(|| mount_new("tmpfs", "/run", Some("size=128k")))?;
    let mut shell = start(host, &name, "none")?;
    shell.ask(&tries(1000, 3))?;
    let kept = format!("/run/qfence/{name}.log");
    let read = || host.run(|| Ok(fs::read_to_string(&kept)?));
    wait_until("three are on record", || Ok(read()?.lines().count() == 3))?;
    host.run(|| fill("/run/filler"))?;
    shell.ask(&tries(2000, 40))?;
    wait_until("the disk is full", || {
        Ok(shell.stderr().contains("cannot write /run/qfence/"))
    })?;
    thread::sleep(Duration::from_secs(2));
    let text = read()?;
    assert!(text.ends_with('\n'), "half a line: {text}");
    host.run(|| Ok(fs::remove_file("/run/filler")?))?;
    shell.ask(&tries(3000, 3))?;
    wait_until("it goes on", || Ok(read()?.contains(r#""port":3002"#)))?;
    let text = read()?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let (all, dropped) = sums(&lines)?;
    assert_eq!(all, 46, "{text}");
    assert!(dropped > 0, "{text}");
    // `logs` shows what there is.
    let mut logs = machine.qfence()?;
    logs.args(["logs", "--json", &name]);
    let logs = to_end(logs)?;
    assert_eq!(logs.stdout.lines().count(), lines.len(), "{logs:?}");
    shell.tell("exit")?;
    assert_eq!(shell.wait_for_code()?, 0);
    Ok(())
}

#[test]
fn standard_error_that_does_not_wait_loses_no_line() -> Result<()> {
    let host = Namespace::new()?;
    let (mut reader, mut writer) = pipe()?;
    // As a process in the fence can have it, which shares the description.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    let mut command = host.command(qfence()?);
    let name = unique_name("nonblock");
    command.args(["exec", "--name", &name, "--user", "nobody"]);
    command.args(["--log", "json:stderr", "--", "bash", "-c"]);
    command.arg(format!("{}; sleep 1.5", tries(1000, 50)));
    without_sudo(&mut command);
    command.stderr(Stdio::from(writer)).stdout(Stdio::null());
    let mut process = tests::process::Process::spawn(command)?;
    // The command keeps the other end.
    let reading = thread::spawn(move || {
        thread::sleep(Duration::from_secs(2));
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    let status = process.wait(tests::run::HANG)?.context("it does not end")?;
    assert!(status.success(), "{status}");
    drop(process);
    let text = reading
        .join()
        .map_err(|_| anyhow::anyhow!("a thread has failed"))??;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(sums(&lines)?, (50, 0), "{text}");
    assert!(!text.contains("not in the log"), "{text}");
    Ok(())
}
