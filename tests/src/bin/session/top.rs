//! Runs three fences whose commands fetch pages, some of them from the host, and watches them with `top`.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ::tests::{
    process::Process,
    screen::Screen,
    world::{HOST_V4, SERVER_V4},
};
use anyhow::{Context as _, Result};

use crate::stage::{COLUMNS, PORT, Stage, with_path};

const ROWS: u16 = 22;

/// The fences: name, options, whether the command tries the host, and the pause between its fetches in seconds.
const FENCES: [(&str, &[&str], bool, &str); 3] = [
    ("agent", &["--profile", "internet-only"], true, "0.2"),
    ("build", &["--monitor"], true, "1"),
    ("vm1", &[], false, "0.5"),
];

/// The time in which the rates and their history become ones of a busy host.
const BUSY: Duration = Duration::from_secs(15);

/// The terminal of a `top` that has watched the fences for a while.
pub(super) fn play(program: &Path) -> Result<Screen> {
    let stage = Stage::new()?;
    let _fences = FENCES
        .iter()
        .map(|fence| start(&stage, program, fence))
        .collect::<Result<Vec<_>>>()?;
    let bash = with_path(stage.host().command("bash"), program)?;
    let mut screen = Screen::start_with(bash, ROWS, COLUMNS)?;
    screen.type_line("qfence-user top")?;
    screen.wait_for("top shows the fences and the attempts of one", |seen| {
        FENCES.iter().all(|(name, ..)| seen.contains(name)) && seen.contains(&destination())
    })?;
    screen.watch(BUSY)?;
    Ok(screen)
}

/// The destination of the attempts.
fn destination() -> String {
    format!("{HOST_V4}:{PORT}")
}

/// Starts a fence whose command fetches pages until it is killed.
fn start(
    stage: &Stage,
    program: &Path,
    (name, options, tries_host, pause): &(&str, &[&str], bool, &str),
) -> Result<Process> {
    let mut fetches = format!("curl -s http://{SERVER_V4}:{PORT}/");
    if *tries_host {
        fetches += &format!(
            "; curl -s http://{}/; curl -s http://127.0.0.1/",
            destination()
        );
    }
    let mut exec: Command = with_path(stage.host().command(program), program)?;
    exec.args(["exec", "--name", name, "--user", "nobody"]);
    exec.args(*options);
    exec.args([
        "--",
        "sh",
        "-c",
        &format!("while :; do {fetches}; sleep {pause}; done"),
    ]);
    exec.stdin(Stdio::null());
    exec.stdout(Stdio::null()).stderr(Stdio::null());
    Process::spawn(exec).with_context(|| format!("start the fence {name}"))
}
