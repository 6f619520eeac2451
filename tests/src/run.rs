//! Runs commands to their end, and detects those that hang.

use std::{
    io::{self, Read, Write as _},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{fence::Fence, process::Process};

/// The time after which anything counts as hung. Only a failing test waits this long.
pub const HANG: Duration = Duration::from_secs(60);

/// The end of a command, and its output.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code; `None` if a signal ended the command.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// A command in the fence on the machine itself, without variables about a caller of sudo and its like.
#[must_use]
pub fn fenced(fence: &Fence, words: &[&str]) -> Command {
    let launcher = fence.launcher();
    let mut command = Command::new(&launcher[0]);
    command.args(&launcher[1..]).args(words);
    without_sudo(&mut command);
    command
}

/// Removes the variables of sudo, doas and pkexec about their caller from the environment of a command.
pub fn without_sudo(command: &mut Command) -> &mut Command {
    let variables = "SUDO_UID SUDO_GID SUDO_USER SUDO_COMMAND DOAS_USER PKEXEC_UID";
    for variable in variables.split(' ') {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end, without input.
pub fn to_end(command: Command) -> Result<Ended> {
    to_end_with(command, Stdio::null(), b"")
}

/// Runs a command to its end with `input` on a pipe.
pub fn to_end_with_input(command: Command, input: &[u8]) -> Result<Ended> {
    to_end_with(command, Stdio::piped(), input)
}

/// Runs a command to its end; `input` is written if `stdin` is a pipe.
pub fn to_end_with(mut command: Command, stdin: Stdio, input: &[u8]) -> Result<Ended> {
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let name = format!("{command:?}");
    let mut process = Process::spawn(command)?;
    let child = process.child();
    let stdout = read_all(child.stdout.take().context("a piped stdout")?);
    let stderr = read_all(child.stderr.take().context("a piped stderr")?);
    if let Some(mut stdin) = child.stdin.take() {
        // A command need not read its input.
        let _ = stdin.write_all(input);
    }
    let Some(status) = process.wait(HANG)? else {
        bail!("{name} does not end");
    };
    let text = |bytes: mpsc::Receiver<io::Result<Vec<u8>>>| -> Result<String> {
        let bytes = bytes
            .recv_timeout(HANG)
            .with_context(|| format!("{name} has ended, and somebody still holds its output"))?;
        Ok(String::from_utf8_lossy(&bytes?).into_owned())
    };
    Ok(Ended {
        status,
        stdout: text(stdout)?,
        stderr: text(stderr)?,
    })
}

/// Waits until `holds` does.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + HANG;
    while !holds()? {
        if Instant::now() >= deadline {
            bail!("in vain for {HANG:?}: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Reads to the end, on a new thread.
pub fn read_all(mut from: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Without a receiver the result is not needed.
        let _ = sender.send(from.read_to_end(&mut bytes).map(|_| bytes));
    });
    receiver
}
