//! Plays the session: the real program at real terminals, on a [`Stage`].

use std::path::Path;

use ::tests::{
    screen::Screen,
    world::{HOST_V4, SERVER_V4},
};
use anyhow::{Result, bail};

use crate::stage::{COLUMNS, PORT, Stage, with_path};

/// The number of lines of a terminal: more than the session fills, so that nothing scrolls.
const ROWS: u16 = 40;

/// Sets the prompt: the user's name and `#` or `$`, in bold green.
const PROMPT: &str = r"PS1='\[\e[1;32m\]\u\$\[\e[0m\] '; clear";

/// The terminals at the end of the session.
pub(super) struct Terminals {
    /// The terminal in which the command ran.
    pub(super) fence: Screen,
    /// The terminal outside the fence, from which it was observed.
    pub(super) host: Screen,
}

/// The maximum number of times that the session is played.
const TRIES: usize = 50;

/// Plays the session. It is played again if lines of the supervisor and of a command are mixed in the terminal, which
/// happens when both write at the same moment.
pub(super) fn play(program: &Path) -> Result<Terminals> {
    for _ in 0..TRIES {
        let terminals = play_once(program)?;
        if is_orderly(&terminals.fence.text()) {
            return Ok(terminals);
        }
    }
    bail!("lines were mixed in the terminal {TRIES} times: try again when the machine is less busy")
}

fn play_once(program: &Path) -> Result<Terminals> {
    let stage = Stage::new()?;
    let on_host = format!("curl http://{HOST_V4}:{PORT}/");
    let on_loopback = format!("curl http://127.0.0.1:{PORT}/");
    let on_internet = format!("curl http://{SERVER_V4}:{PORT}/");
    let greeting = |address| format!("hello from {address}:{PORT}");

    let mut fence = start(&stage, program)?;
    run(&mut fence, &on_host, &greeting(HOST_V4))?;
    run(
        &mut fence,
        "qfence-user exec --name job --user nobody -- bash --norc",
        "nobody$",
    )?;
    run(&mut fence, &on_internet, &greeting(SERVER_V4))?;
    for attempt in [&on_host, &on_loopback] {
        let destination = attempt
            .trim_start_matches("curl http://")
            .trim_end_matches('/');
        run(&mut fence, attempt, &format!("denied tcp {destination}"))?;
    }

    let mut outside = start(&stage, program)?;
    run(&mut outside, "qfence-user ps", "running")?;
    run(&mut outside, "qfence-user logs job", "2 attempts")?;
    let allow = format!("qfence-user set job --allow tcp:{HOST_V4}:{PORT}");
    run(&mut outside, &allow, "root#")?;
    run(&mut fence, &on_host, &greeting(HOST_V4))?;
    Ok(Terminals {
        fence,
        host: outside,
    })
}

/// Starts a terminal with root's shell on the host, with `qfence-user` on its PATH.
fn start(stage: &Stage, program: &Path) -> Result<Screen> {
    let bash = with_path(stage.host().command("bash"), program)?;
    let mut screen = Screen::start_with(bash, ROWS, COLUMNS)?;
    screen.type_line(PROMPT)?;
    screen.wait_for("the prompt", |seen| seen.trim() == "root#")?;
    Ok(screen)
}

/// Types a command, and waits for the next prompt and for an expected text.
fn run(screen: &mut Screen, line: &str, expected: &str) -> Result<()> {
    let text = screen.text();
    let (prompts, found) = (prompts(&text), text.matches(expected).count());
    screen.type_line(line)?;
    screen.wait_for(line, |seen| {
        self::prompts(seen) > prompts && seen.matches(expected).count() > found
    })?;
    Ok(())
}

/// The number of prompts on the screen.
fn prompts(seen: &str) -> usize {
    seen.lines()
        .filter(|line| line.split(' ').next().is_some_and(is_prompt))
        .count()
}

/// Whether each message and each record line of the two refused attempts is a line of its own, and nothing was written
/// between a prompt and the command that was typed there.
fn is_orderly(seen: &str) -> bool {
    let count = |is: &dyn Fn(&str) -> bool| seen.lines().filter(|line| is(line)).count();
    let messages = count(&|line| line.starts_with("curl: ") && line.ends_with(" server"));
    let records = count(&|line| line.starts_with("20") && line.ends_with(" rule deny host"));
    let bare_prompts = count(&is_prompt);
    (messages, records, bare_prompts) == (2, 2, 1)
}

fn is_prompt(text: &str) -> bool {
    ["root#", "nobody$"].contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "curl: (7) Failed to connect: Couldn't connect to server";
    const RECORD: &str =
        "2026-11-27T01:15:21Z job denied tcp 127.0.0.1:8080 connect4 rule deny host";

    #[test]
    fn lines_that_are_whole_are_orderly_in_either_order() {
        let seen = format!(
            "nobody$ curl\n{MESSAGE}\n{RECORD}\nnobody$ curl\n{RECORD}\n{MESSAGE}\nnobody$\n"
        );
        assert!(is_orderly(&seen));
    }

    #[test]
    fn a_line_within_another_is_not_orderly() {
        let (head, tail) = MESSAGE.split_at(2);
        let whole = format!("{MESSAGE}\n{RECORD}\n");
        assert!(!is_orderly(&format!(
            "{whole}{head}{RECORD}\n{tail}\nnobody$\n"
        )));
        let after_prompt = format!("{whole}{MESSAGE}\nnobody$\n{RECORD}\nnobody$\n");
        assert!(!is_orderly(&after_prompt));
        assert!(!is_orderly(&format!(
            "{whole}{MESSAGE}\nnobody$ {RECORD}\n"
        )));
    }
}
