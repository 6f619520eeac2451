//! A shell in a fence that runs the lines that a test sends to it, even after its supervisor has ended.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::{
    probe::{self, ProbeResult},
    process::Process,
    run::HANG,
};

/// A running shell. Dropping it ends the started process, usually a supervisor.
#[derive(Debug)]
pub struct Shell {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    errors: tempfile::NamedTempFile,
}

impl Shell {
    /// Starts a command that ends in `sh`, possibly after a launcher.
    pub fn start(mut command: Command) -> Result<Self> {
        let errors = tempfile::NamedTempFile::new()?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.reopen()?);
        let mut process = Process::spawn(command)?;
        let stdin = process.child().stdin.take();
        let stdout = process.child().stdout.take().context("a piped stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut shell = Self {
            process,
            stdin,
            lines,
            errors,
        };
        shell.ask("true").context("the shell does not answer")?;
        Ok(shell)
    }

    /// Runs one line in the shell, and returns its output.
    pub fn ask(&mut self, line: &str) -> Result<Vec<String>> {
        const DONE: &str = "-- done --";
        self.tell(&format!("{line}\necho '{DONE}'"))?;
        let mut answer = Vec::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(HANG) else {
                bail!(
                    "no end of the answer to {line:?}: {answer:?}\n{}",
                    self.stderr()
                );
            };
            if line == DONE {
                return Ok(answer);
            }
            answer.push(line);
        }
    }

    /// Runs one line in the shell, without waiting for output.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("tell the shell {line:?}"))
    }

    /// Waits for one line of output that no [`Self::ask`] requested.
    pub fn next_line(&mut self) -> Result<String> {
        let line = self.lines.recv_timeout(HANG);
        line.with_context(|| format!("nothing comes\n{}", self.stderr()))
    }

    /// Runs the probe in the shell.
    pub fn attempt(&mut self, attempts: &[&str]) -> Result<Vec<ProbeResult>> {
        let program = probe::program()?;
        let answer = self.ask(&format!("{} {}", program.display(), attempts.join(" ")))?;
        probe::read_lines(&answer.join("\n"))
    }

    /// The process id of the shell itself.
    pub fn pid(&mut self) -> Result<u32> {
        let answer = self.ask("echo $$")?;
        let [pid] = &answer[..] else {
            bail!("an odd answer: {answer:?}");
        };
        Ok(pid.parse()?)
    }

    /// The id of the started process: the supervisor, or the shell if there is none.
    #[must_use]
    pub fn started(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal to the started process only.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills the started process only, and does not reap it.
    pub fn kill_supervisor(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        // State Z of the leader is not enough: other threads may still have descriptors open.
        let pid = Pid::from_raw(i32::try_from(self.started())?);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags).context("wait for the supervisor's death")?;
        Ok(())
    }

    /// Closes the shell's input, which ends the shell when it reads again.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end of the started process, then kills the rest of its process group.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.process.wait(HANG)?;
        status.with_context(|| format!("it does not end\n{}", self.stderr()))
    }

    /// Waits for the end of the started process; returns its exit code.
    pub fn wait_for_code(&mut self) -> Result<i32> {
        let status = self.wait()?;
        let code = status.code();
        code.with_context(|| format!("it ended by signal {:?}", status.signal()))
    }

    /// The whole standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.errors.path()).unwrap_or_default()
    }
}

/// The letter for a process's state (proc_pid_stat(5)); `None` if there is no such process.
#[must_use]
pub fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    // The name, in parentheses, may contain any character.
    stat.rsplit_once(") ")?.1.chars().next()
}
