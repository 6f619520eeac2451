//! A helper process that reads what /proc says of processes in a fence, for that can last for ever.
//!
//! Whoever reads /proc/PID/stat or status holds the memory of the process meanwhile (`get_task_mm` in `do_task_stat` and
//! `proc_pid_status`, fs/proc/array.c). If the process ends then, it is the reader who takes the last mappings down
//! (`exit_mmap` in mm/mmap.c), and for a file of a FUSE file system that never answers that does not end
//! (`fuse_vma_close` in fs/fuse/file.c), whatever signal the reader gets. A thread would keep its process from ending, so
//! it is another process.

use std::{
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{read, write},
};
use serde::{Deserialize, Serialize};

use super::{
    end::{ProcessEnd, ending},
    stat::stat_text,
};
use crate::base::inherited;

/// The hidden verb.
pub const VERB: &str = "stat-reader";

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";

/// How many helpers are left behind in the kernel before there are no more.
const LEFT: usize = 8;

/// More than an answer has, in bytes.
const ANSWER: usize = 16 * 1024;

/// More than a question has, in bytes.
const QUESTION: usize = 256;

/// What comes before an answer, which may have nothing else.
const ANSWERED: u8 = b'a';

/// What a helper is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// What /proc/PID/stat says of a process, as it is.
    Stat(u32),
    /// A process in words.
    Name(i32),
    /// What a thread does, in words.
    Describe(i32),
    /// How a process ends, as [`ProcessEnd::encode`] has it.
    Ending(i32),
    /// What keeps a process that is ending, in words.
    Keepers(i32),
}

impl Question {
    /// How long an answer is waited for. A busy machine takes a while to start the helper, and what is asked of all
    /// threads of a process takes longer.
    fn patience(self) -> Duration {
        match self {
            Self::Stat(_) | Self::Name(_) | Self::Describe(_) => Duration::from_secs(1),
            Self::Ending(_) | Self::Keepers(_) => Duration::from_secs(5),
        }
    }

    fn answer(self, proc: &Path) -> Vec<u8> {
        match self {
            Self::Stat(pid) => stat_text(&proc.join(pid.to_string())).unwrap_or_default(),
            Self::Name(pid) => super::name(pid).into_bytes(),
            Self::Describe(tid) => super::describe(tid).unwrap_or_default().into_bytes(),
            Self::Ending(pid) => ProcessEnd::encode(ending(pid)).into_bytes(),
            Self::Keepers(pid) => super::describe_keepers(pid).into_bytes(),
        }
    }
}

/// Asks for what /proc says. An answer that does not come is an error, after a second or a few.
#[derive(Debug)]
pub(crate) struct Apart {
    proc: PathBuf,
    is_here: bool,
    helper: Option<Helper>,
    /// Those that did not answer.
    left: Vec<Child>,
}

#[derive(Debug)]
struct Helper {
    socket: OwnedFd,
    child: Child,
}

impl Apart {
    /// Asks a helper process, which is started when it is needed, or by [`Apart::prepare`].
    pub(crate) fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            is_here: false,
            helper: None,
            left: Vec::new(),
        }
    }

    /// Reads in this process: of what is no process of a fence.
    #[cfg(test)]
    pub(crate) fn here(proc: &Path) -> Self {
        Self {
            is_here: true,
            ..Self::new(proc)
        }
    }

    /// Starts the helper. What fails is an error when it is needed.
    pub(crate) fn prepare(&mut self) {
        if self.helper.is_none() && !self.is_here && !self.has_given_up() {
            self.helper = Helper::start(&self.proc).ok();
        }
    }

    /// Whether so many helpers are left behind that none is asked any more.
    pub(crate) fn has_given_up(&self) -> bool {
        self.left.len() >= LEFT
    }

    /// What the answer is; empty if there is no such process.
    ///
    /// # Errors
    /// If there can be no helper, or it does not answer: it is left behind then.
    pub(crate) fn ask(&mut self, question: Question) -> Result<Vec<u8>> {
        if self.is_here {
            return Ok(question.answer(&self.proc));
        }
        self.left
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        if self.has_given_up() {
            bail!("{LEFT} processes that read it are stuck in the kernel");
        }
        let helper = match &mut self.helper {
            Some(helper) => helper,
            none => none.insert(Helper::start(&self.proc)?),
        };
        helper.ask(question).inspect_err(|_| {
            // With its socket closed it ends, once the kernel lets it.
            self.left
                .extend(self.helper.take().map(|helper| helper.child));
        })
    }
}

impl Helper {
    fn start(proc: &Path) -> Result<Self> {
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("cannot make a pair of sockets")?;
        let child = Command::new(SELF)
            .arg(VERB)
            .arg(proc)
            .stdin(theirs)
            .stdout(Stdio::null())
            // One that is left behind keeps nothing from whoever started this: neither its pipes nor its directory.
            .stderr(Stdio::null())
            .current_dir("/")
            // The keys of a terminal are not for it.
            .process_group(0)
            .spawn()
            .context("cannot start a helper process")?;
        Ok(Self { socket, child })
    }

    fn ask(&self, question: Question) -> Result<Vec<u8>> {
        write(&self.socket, &serde_json::to_vec(&question)?)?;
        let deadline = Instant::now() + question.patience();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) => return Err(io::Error::from(ErrorKind::TimedOut).into()),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut answer = vec![0; ANSWER];
        let count = read(&self.socket, &mut answer)?;
        match answer.get(..count) {
            Some([ANSWERED, answer @ ..]) => Ok(answer.to_vec()),
            // Nothing: it has ended.
            _ => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// Answers what is asked by standard input, a socket, until nobody asks any more.
///
/// # Errors
/// If standard input is nothing of the kind.
pub fn serve(proc: &Path) -> Result<()> {
    inherited::close_all_but(0)?;
    let stdin = io::stdin();
    let mut question = [0; QUESTION];
    loop {
        let count = read(&stdin, &mut question).context("cannot read standard input")?;
        if count == 0 {
            return Ok(());
        }
        let question: Question = serde_json::from_slice(question.get(..count).unwrap_or_default())?;
        let mut answer = question.answer(proc);
        answer.truncate(ANSWER - 1);
        answer.insert(0, ANSWERED);
        write(&stdin, &answer).context("cannot write to standard input")?;
    }
}
