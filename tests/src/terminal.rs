//! A pseudo-terminal with an interactive bash and real job control.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    unistd::{Pid, setsid, tcgetpgrp, ttyname},
};

use crate::{
    namespace::Namespace,
    run::{self, HANG, without_sudo},
};

/// Ctrl-C.
pub const CTRL_C: u8 = 0x03;
/// Ctrl-Z.
pub const CTRL_Z: u8 = 0x1a;
/// Ctrl-S: stops the output of the terminal; processes that write to it wait.
pub const CTRL_S: u8 = 0x13;
/// Ctrl-Q: continues the output.
pub const CTRL_Q: u8 = 0x11;

/// The prompt of the shell that the terminal was started with.
pub const PROMPT: &str = "outer> ";

/// A terminal. Dropping it hangs the terminal up, which ends its session.
#[derive(Debug)]
pub struct Terminal {
    screen: File,
    path: PathBuf,
    shell: Child,
    /// Output that was received and not yet examined.
    pending: Vec<u8>,
}

impl Terminal {
    /// Starts an interactive bash at a new terminal without control sequences, and waits for its prompt.
    pub fn start() -> Result<Self> {
        // The terminal is so wide that no line that a test expects is wrapped.
        Self::start_with(Command::new("bash"), "dumb", 50, 1000)
    }

    /// Like [`Self::start`], in a namespace.
    pub fn start_in(namespace: &Namespace) -> Result<Self> {
        Self::start_with(namespace.command("bash"), "dumb", 50, 1000)
    }

    /// Starts the caller's bash (in a namespace, or in another environment) at a new terminal of this type and size,
    /// and waits for its prompt.
    pub fn start_with(mut bash: Command, kind: &str, rows: u16, columns: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).context("make a terminal")?;
        let path = ttyname(&pair.slave).context("the terminal's name")?;
        let stream = || -> io::Result<Stdio> { Ok(pair.slave.try_clone()?.into()) };
        bash.args(["--norc", "--noediting", "-i"])
            .env("PS1", PROMPT)
            .env("TERM", kind)
            .env_remove("PROMPT_COMMAND")
            .stdin(stream()?)
            .stdout(stream()?)
            .stderr(stream()?);
        without_sudo(&mut bash);
        let opened = path.clone();
        // SAFETY: between fork and exec, the closure only makes system calls and opens a short path, which does not
        // allocate.
        unsafe {
            bash.pre_exec(move || {
                setsid()?;
                // The first terminal that a session leader opens becomes the controlling terminal of the session.
                OpenOptions::new().read(true).write(true).open(&opened)?;
                Ok(())
            });
        }
        let shell = bash.spawn().context("start bash")?;
        let mut terminal = Self {
            screen: pair.master.into(),
            path,
            shell,
            pending: Vec::new(),
        };
        terminal.expect(PROMPT)?;
        Ok(terminal)
    }

    /// Types a line, with Enter.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.write(format!("{line}\r").as_bytes())
    }

    /// Presses a key.
    pub fn press(&mut self, key: u8) -> Result<()> {
        self.write(&[key])
    }

    /// Types a line, and waits for the outer prompt; returns the output before it.
    pub fn run(&mut self, line: &str) -> Result<String> {
        self.type_line(line)?;
        self.expect(PROMPT)
    }

    /// Waits for `text`; returns the output since the last call, up to and including `text`.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + HANG;
        loop {
            let at = self
                .pending
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = at {
                let seen: Vec<u8> = self.pending.drain(..at + text.len()).collect();
                return Ok(String::from_utf8_lossy(&seen).into_owned());
            }
            if !self.read(deadline)? {
                bail!(
                    "no {text:?} on the terminal: {:?}",
                    String::from_utf8_lossy(&self.pending)
                );
            }
        }
    }

    /// Waits up to `limit` for output; returns the output since the last call, or nothing.
    pub fn take(&mut self, limit: Duration) -> Result<Vec<u8>> {
        if self.pending.is_empty() {
            self.read(Instant::now() + limit)?;
        }
        Ok(std::mem::take(&mut self.pending))
    }

    /// Its device, such as `/dev/pts/3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The foreground process group.
    pub fn foreground(&self) -> Result<Pid> {
        tcgetpgrp(&self.screen).context("ask the terminal")
    }

    /// Waits until a process group is in the foreground: signals of keys are sent to the foreground process group.
    pub fn wait_for_foreground(&self, group: u32) -> Result<()> {
        let group = Pid::from_raw(i32::try_from(group)?);
        run::wait_until(&format!("{group} has the terminal"), || {
            Ok(self.foreground()? == group)
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.screen.write_all(bytes).context("type")
    }

    /// Reads more output; returns whether any was received in time.
    fn read(&mut self, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
        let mut polled = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, timeout).context("poll the terminal")? == 0 {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        // EIO: no process has the terminal open any more.
        let count = self.screen.read(&mut buffer).unwrap_or(0);
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The end of the session leader hangs the terminal up: the foreground job gets SIGHUP, and stopped jobs get
        // SIGHUP and SIGCONT.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
