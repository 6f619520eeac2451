//! No name that a process chooses, and no option, puts control characters into a log or a message.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence},
    process::Process,
    run::{HANG, wait_until},
    world::World,
};

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
