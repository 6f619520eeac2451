//! At a real terminal a fenced command is a job like any other, and qfence's lines stay readable.

use std::fs;

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    job::{ensure_ended, launch, process_named, supervisor, wait_for_state},
    probe,
    process::Process,
    run::wait_until,
    shell::state_of,
    terminal::{CTRL_C, CTRL_Z, PROMPT, Terminal},
};

/// A loop that answers every line.
const ANSWERING: &str = r#"sh -c 'echo begun; while read line; do echo "<$line>"; done'"#;

/// An interactive shell with a prompt that the terminal does not show unless it prints it.
const INNER_SHELL: &str = "env PS1='in''ner> ' bash --norc --noediting -i";
const INNER_PROMPT: &str = "inner> ";

/// Stops the job by a key, and waits until the supervisor has stopped.
fn stop(terminal: &mut Terminal, supervisor: u32) -> Result<()> {
    terminal.press(CTRL_Z)?;
    terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')
}

/// Ends the job by a key.
fn end(terminal: &mut Terminal, fence: &Fence) -> Result<()> {
    terminal.press(CTRL_C)?;
    terminal.expect(PROMPT)?;
    ensure_ended(terminal, fence, 130)
}

#[test]
fn ctrl_z_stops_fg_goes_on_and_ctrl_c_ends() -> Result<()> {
    let fence = Fence::new("job")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, ANSWERING)?;
    terminal.expect("begun\r\n")?;
    let (supervisor, command) = (supervisor(&fence)?, process_named(&fence, "sh")?);
    for round in 1..=2 {
        stop(&mut terminal, supervisor)?;
        wait_for_state(command, 'T')?;
        let jobs = terminal.run("jobs")?;
        assert!(jobs.contains("[1]+  Stopped"), "{jobs:?}");
        terminal.type_line("fg")?;
        terminal.expect("echo begun")?;
        terminal.type_line(&format!("line {round}"))?;
        terminal.expect(&format!("<line {round}>\r\n"))?;
    }
    end(&mut terminal, &fence)
}

/// The supervisor goes on slowly, so that the key comes between the shell's SIGCONT and what it does then.
#[test]
fn a_stop_right_after_fg_is_not_undone() -> Result<()> {
    let fence = Fence::new("again")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, ANSWERING)?;
    terminal.expect("begun\r\n")?;
    let (supervisor, command) = (supervisor(&fence)?, process_named(&fence, "sh")?);
    stop(&mut terminal, supervisor)?;
    let mut strace = std::process::Command::new("strace");
    let inject = "inject=kill,waitid:delay_enter=1000000";
    strace.args(["-qq", "-o", "/dev/null", "-e", "trace=kill,waitid"]);
    strace.args(["-e", inject, "-p", &supervisor.to_string()]);
    let mut strace = Process::spawn(strace)?;
    let status = format!("/proc/{supervisor}/status");
    wait_until("it is traced", || {
        Ok(!fs::read_to_string(&status)?.contains("TracerPid:\t0\n"))
    })?;
    terminal.type_line("fg")?;
    terminal.expect("echo begun")?;
    terminal.type_line("line")?;
    terminal.expect("<line>\r\n")?;
    // By then the supervisor is about to make the first of these calls.
    std::thread::sleep(std::time::Duration::from_millis(400));
    terminal.press(CTRL_Z)?;
    terminal.expect(PROMPT)?;
    wait_for_state(command, 'T')?;
    strace.stop()?;
    let jobs = terminal.run("jobs")?;
    assert!(jobs.contains("[1]+  Stopped"), "{jobs:?}");
    terminal.type_line("fg")?;
    terminal.wait_for_foreground(supervisor)?;
    end(&mut terminal, &fence)
}

#[test]
fn keys_reach_a_command_that_has_left_the_jobs_process_group() -> Result<()> {
    const LEAVES: &str = r#"/usr/bin/python3 -c 'import os; os.setpgid(0, 0); os.execlp("sh", "sh", "-c", "echo left; exec sleep 1000")'"#;
    let fence = Fence::new("left")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, LEAVES)?;
    terminal.expect("left\r\n")?;
    let (supervisor, command) = (supervisor(&fence)?, process_named(&fence, "sleep")?);
    stop(&mut terminal, supervisor)?;
    wait_for_state(command, 'T')?;
    terminal.type_line("bg")?;
    wait_until("the command goes on", || Ok(state_of(command) == Some('S')))?;
    terminal.expect(PROMPT)?;
    terminal.type_line("fg")?;
    terminal.wait_for_foreground(supervisor)?;
    end(&mut terminal, &fence)
}

#[test]
fn bg_goes_on_in_the_background() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ticks = dir.path().join("ticks");
    let count = || Ok::<_, anyhow::Error>(fs::read(&ticks).map_or(0, |text| text.len()));
    let fence = Fence::new("background")?;
    // No sleep in the loop: Ctrl-Z could stop it between vfork and exec, and its parent would wait.
    let mut terminal = Terminal::start()?;
    let command = format!(
        "sh -c 'echo begun; while :; do echo >> {}; done'",
        ticks.display()
    );
    launch(&mut terminal, &fence, &command)?;
    terminal.expect("begun\r\n")?;
    let (supervisor, command) = (supervisor(&fence)?, process_named(&fence, "sh")?);
    stop(&mut terminal, supervisor)?;
    wait_for_state(command, 'T')?;
    let stopped_at = count()?;

    terminal.run("bg")?;
    wait_until("the command goes on", || Ok(count()? > stopped_at + 3))?;
    let shown = terminal.run("echo meanwhile=$((1 + 1)); jobs")?;
    assert!(shown.contains("meanwhile=2\r\n"), "{shown:?}");
    assert!(shown.contains("[1]+  Running"), "{shown:?}");

    terminal.type_line("fg")?;
    terminal.expect("done'\r\n")?;
    terminal.wait_for_foreground(supervisor)?;
    end(&mut terminal, &fence)
}

#[test]
fn a_shell_inside_has_jobs_of_its_own() -> Result<()> {
    let fence = Fence::new("shell")?;
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, INNER_SHELL)?;
    terminal.expect(INNER_PROMPT)?;
    let (supervisor, shell) = (supervisor(&fence)?, process_named(&fence, "bash")?);

    // Ctrl-Z inside stops the inner job alone.
    terminal.type_line("sleep 1000")?;
    let sleep = process_named(&fence, "sleep")?;
    terminal.press(CTRL_Z)?;
    terminal.expect(INNER_PROMPT)?;
    wait_for_state(sleep, 'T')?;
    for pid in [supervisor, shell] {
        assert_ne!(state_of(pid), Some('T'), "{pid}");
    }

    // The inner shell's own stop is the outer shell's to see.
    for _ in 1..=2 {
        terminal.type_line("suspend")?;
        terminal.expect(PROMPT)?;
        wait_for_state(supervisor, 'T')?;
        wait_for_state(shell, 'T')?;
        let jobs = terminal.run("echo $((40 + 2)); jobs")?;
        assert!(jobs.contains("42\r\n[1]+  Stopped"), "{jobs:?}");
        terminal.type_line("fg")?;
        terminal.expect(INNER_PROMPT)?;
        terminal.type_line("jobs; echo $((30 + 7))")?;
        let jobs = terminal.expect("37\r\n")?;
        assert!(jobs.contains("sleep 1000"), "{jobs:?}");
        terminal.expect(INNER_PROMPT)?;
    }

    // Ctrl-C ends the inner job alone.
    terminal.type_line("fg")?;
    terminal.wait_for_foreground(sleep)?;
    terminal.press(CTRL_C)?;
    terminal.expect(INNER_PROMPT)?;
    terminal.type_line("exit 5")?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 5)
}

#[test]
fn a_shell_gets_its_terminal_back_from_a_command_that_had_it() -> Result<()> {
    let fence = Fence::new("owner")?;
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, INNER_SHELL)?;
    terminal.expect(INNER_PROMPT)?;
    terminal.type_line("kill -9 $$")?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 137)?;
    // A program in the foreground may read from it.
    terminal.type_line("head -n 1")?;
    terminal.type_line("typed")?;
    terminal.expect("typed\r\ntyped\r\n")?;
    terminal.expect(PROMPT)?;
    Ok(())
}

/// Has a command refused twice, after `setting` of the terminal, with an unfinished line before;
/// returns what the terminal showed from there on.
fn shown_with(setting: &str) -> Result<String> {
    let fence = Fence::new("lines")?.with(&["--log", "stderr", "--log-format", "text"]);
    let mut terminal = Terminal::start()?;
    let command = format!(
        "sh -c '{setting}; printf lo\"\"gin:; {} tcp/127.0.0.1/9 tcp/127.0.0.2/9 >/dev/null; \
         read line; stty sane'",
        probe::program()?.display()
    );
    launch(&mut terminal, &fence, &command)?;
    terminal.expect("\r\nqfence: warning: ")?;
    terminal.expect("login:")?;
    let mut shown = terminal.expect("127.0.0.2:9 ")?;
    shown += &terminal.expect("rule deny host\r\n")?;
    // Enter is a line feed in raw mode, which the terminal makes of it in cooked mode.
    terminal.press(b'\n')?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 0)?;
    Ok(shown)
}

/// The shown lines of the log, each between what is before and what is after it.
fn lines<'a>(shown: &'a str, before: &str, after: &str) -> Result<Vec<&'a str>> {
    let mut rest = shown;
    let mut lines = Vec::new();
    while !rest.is_empty() {
        let begun = rest.strip_prefix(before);
        let (line, more) = begun
            .and_then(|begun| begun.split_once(after))
            .with_context(|| format!("{rest:?} of {shown:?}"))?;
        assert!(!line.contains(['\r', '\n']), "{line:?}");
        assert!(line.contains(" denied tcp 127.0.0."), "{line:?}");
        lines.push(line);
        rest = more;
    }
    Ok(lines)
}

#[test]
fn in_raw_mode_every_line_begins_at_the_left() -> Result<()> {
    let shown = shown_with("stty raw -echo")?;
    assert_eq!(lines(&shown, "\r\n", "\r\n")?.len(), 2, "{shown:?}");
    Ok(())
}

#[test]
fn in_cooked_mode_the_lines_are_plain() -> Result<()> {
    let shown = shown_with("stty -echo")?;
    assert_eq!(lines(&shown, "", "\r\n")?.len(), 2, "{shown:?}");
    Ok(())
}
