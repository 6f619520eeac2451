//! A QEMU process, its files, and the output of its two serial lines.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{namespace::Namespace, process::Process, workspace};

/// The number of bytes of a log that an error shows.
const TAIL: usize = 4000;

/// A running QEMU. The test controls the guest by its stdin and stdout.
#[derive(Debug)]
pub(super) struct Qemu {
    process: Process,
    stdin: ChildStdin,
    lines: Receiver<String>,
    files: Files,
}

/// The files of one guest. Every user can read them, and QEMU can write those that it needs to.
#[derive(Debug)]
pub(super) struct Files(tempfile::TempDir);

impl Files {
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qfence-guest-").tempdir()?;
        workspace::make_readable(dir.path())?;
        let files = Self(dir);
        for path in [files.console(), files.stderr()] {
            fs::write(&path, "")?;
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        }
        Ok(files)
    }

    pub(super) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// The output of the guest's first serial line.
    pub(super) fn console(&self) -> PathBuf {
        self.dir().join("console.log")
    }

    /// The standard error of QEMU and its launcher.
    pub(super) fn stderr(&self) -> PathBuf {
        self.dir().join("stderr.log")
    }
}

impl Qemu {
    /// Starts QEMU on `host`, as the last words of a launcher's command.
    pub(super) fn start<S: AsRef<OsStr>>(
        host: &Namespace,
        launcher: &[S],
        files: Files,
        arguments: &[String],
    ) -> Result<Self> {
        const PROGRAM: &str = "qemu-system-x86_64";
        let mut command = match launcher {
            [] => host.command(PROGRAM),
            [first, rest @ ..] => {
                let mut command = host.command(first);
                command.args(rest).arg(PROGRAM);
                command
            }
        };
        command
            .args("-accel tcg -nodefaults -no-user-config -display none -no-reboot".split(' '))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(files.stderr())?);
        let mut process = Process::spawn(command)?;
        let stdin = process.child().stdin.take().context("QEMU has a stdin")?;
        let stdout = process.child().stdout.take().context("QEMU has a stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
            lines
                .map(|line| text(&line))
                .try_for_each(|line| sender.send(line))
        });
        Ok(Self {
            process,
            stdin,
            lines,
            files,
        })
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").with_context(|| format!("say {line:?} to the guest"))
    }

    /// The next line of the guest's output; `None` if QEMU has ended.
    pub(super) fn next_line(&self, deadline: Instant) -> Result<Option<String>> {
        match self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(anyhow!("the guest says nothing")),
        }
    }

    /// Collects the guest's output up to the line `marker`.
    pub(super) fn lines_until(&self, marker: &str, limit: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut lines = Vec::new();
        let gave_up = loop {
            match self.next_line(deadline) {
                Ok(Some(line)) if line == marker => return Ok(lines),
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break anyhow!("QEMU has ended"),
                Err(error) => break error,
            }
        };
        let said = lines.join("\n");
        Err(gave_up.context(format!("wait for {marker:?}; the guest said:\n{said}")))
            .with_context(|| self.logs())
    }

    /// The ends of the console's log and of QEMU's standard error.
    pub(super) fn logs(&self) -> String {
        let tail = |path: PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            text(&bytes[bytes.len().saturating_sub(TAIL)..])
        };
        let (console, stderr) = (tail(self.files.console()), tail(self.files.stderr()));
        format!("console:\n{console}\nstderr of QEMU and its launcher:\n{stderr}")
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches('\r')
        .to_owned()
}
