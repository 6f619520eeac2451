//! The helper process, as the process that asks it sees it.

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

/// A helper process. Dropping this ends it, or leaves it behind where the kernel does not let it end: then that
/// happens when the sockets that it waits for are let go.
pub(super) struct Helper {
    requests: UnixStream,
    answers: Receiver<Answer>,
    /// `None` once it is left.
    child: Option<Child>,
}

impl Helper {
    /// Starts `program`, which is this one, as a helper that reads from the storage `owners`.
    ///
    /// # Errors
    /// If that cannot be done.
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
            // One that is left behind keeps nothing from whoever started this: neither its pipes nor its directory.
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

    /// Asks it something.
    ///
    /// # Errors
    /// If it has ended.
    pub(super) fn ask(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.requests
            .write_all(&line)
            .context("a helper process has ended")
    }

    /// The next answer; `None` if there is none for so long.
    ///
    /// # Errors
    /// If it has ended, or says why it has no answer.
    pub(super) fn answer(&mut self, patience: Duration) -> Result<Option<Answer>> {
        match self.answers.recv_timeout(patience) {
            Ok(Answer::Failed(error)) => Err(anyhow!(error)),
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("a helper process has ended"),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It has ended if that fails.
        let _ = self.requests.shutdown(Shutdown::Both);
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            // Its end may take for ever, but this process may end before.
            let _ = thread::Builder::new().spawn(move || child.wait());
        }
    }
}
