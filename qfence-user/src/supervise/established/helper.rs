//! The helper process, from the side of the process that uses it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::Shutdown,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::message::{Answer, Request};

/// A helper process. Dropping it ends the process. If the kernel does not let it end, it is abandoned, and ends when
/// the sockets that it waits for are unlocked.
pub(super) struct Helper {
    requests: UnixStream,
    answers: Receiver<Answer>,
    /// `None` once it was abandoned.
    child: Option<Child>,
}

impl Helper {
    /// Starts `program`, which is this executable, as a helper that reads the storage `owners`.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(super) fn start(program: &Path, owners: Option<BorrowedFd<'_>>) -> Result<Self> {
        let (requests, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let owners = match owners {
            Some(owners) => owners
                .try_clone_to_owned()
                .context("cannot duplicate the descriptor of a map")?
                .into(),
            None => Stdio::null(),
        };
        let child = Command::new(program)
            .arg("sock-diag")
            .stdin(OwnedFd::from(theirs))
            .stdout(owners)
            // An abandoned helper must not keep the pipes or the directory of this process in use.
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let lines = BufReader::new(requests.try_clone().context("cannot duplicate a socket")?);
        let (sender, answers) = channel();
        thread::Builder::new()
            .spawn(move || {
                let read = |line: String| serde_json::from_str(&line).ok();
                for answer in lines.lines().map_while(Result::ok).map_while(read) {
                    if sender.send(answer).is_err() {
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Self {
            requests,
            answers,
            child: Some(child),
        })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If the helper has ended.
    pub(super) fn ask(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.requests
            .write_all(&line)
            .context("a helper process has ended")
    }

    /// The next answer; `None` if none arrives within `patience`.
    ///
    /// # Errors
    /// If the helper has ended, or answers with an error.
    pub(super) fn answer(&mut self, patience: Duration) -> Result<Option<Answer>> {
        match self.answers.recv_timeout(patience) {
            Ok(Answer::Failed(error)) => Err(anyhow!(error)),
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("a helper process has ended"),
        }
    }
}

impl Helper {
    /// Ends the process like [`Drop`], and returns it.
    pub(super) fn dismiss(mut self) -> Option<Dismissed> {
        self.stop().map(Dismissed)
    }

    fn stop(&mut self) -> Option<Child> {
        // If this fails, it has ended.
        let _ = self.requests.shutdown(Shutdown::Both);
        let mut child = self.child.take()?;
        let _ = child.kill();
        Some(child)
    }
}

/// A helper process that was killed. It ends when the kernel does not wait for sockets any more on its behalf.
#[derive(Debug)]
pub struct Dismissed(Child);

impl Dismissed {
    /// Whether it has ended, with all of its threads.
    pub fn has_ended(&mut self) -> bool {
        // The kernel reports the end of a process when its last thread has ended. An error means that it was reported
        // already.
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(mut child) = self.stop() {
            // The helper may never end. This process can end before it.
            let _ = thread::Builder::new().spawn(move || child.wait());
        }
    }
}
