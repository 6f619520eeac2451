//! A helper process that reads /proc for processes in a fence, because such a read can block for ever.
//!
//! A process that reads /proc/PID/stat or status holds a reference to the memory of PID (`get_task_mm` in
//! `do_task_stat` and `proc_pid_status`, fs/proc/array.c). If PID ends meanwhile, the reader removes the last
//! mappings (`exit_mmap` in mm/mmap.c). For a file of a FUSE file system that never answers, this blocks for ever,
//! whatever signal the reader gets (`fuse_vma_close` in fs/fuse/file.c). A thread blocked like that would keep its
//! process from ending, so the reader is another process. Other reads that can block: `open_taps.rs`, `tun.rs`.

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
    open_taps::{self, Tables},
    stat::stat_text,
    tun,
};
use crate::base::{files::in_root, inherited};

/// The hidden verb of the helper.
pub const VERB: &str = "stat-reader";

/// This executable, even if its file was removed or replaced.
const SELF: &str = "/proc/self/exe";

/// How many blocked helpers are left behind before no more are started.
const LEFT: usize = 8;

/// More bytes than an answer has.
const ANSWER: usize = 16 * 1024;

/// More bytes than a question has.
const QUESTION: usize = 256;

/// The first byte of an answer. The rest may be empty.
const ANSWERED: u8 = b'a';

/// A question to the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// The text of /proc/PID/stat.
    Stat(u32),
    /// A process in words: number, name and state.
    Name(i32),
    /// A thread in words: name, state and system call.
    Describe(i32),
    /// How a process ends, encoded by [`ProcessEnd::encode`].
    Ending(i32),
    /// The resolv.conf of a process, as [`in_root::identified`] writes it.
    Resolver(i32),
    /// The tap and macvtap devices that a process has open, as [`open_taps::answer`] writes them.
    OpenTaps(i32, Tables),
    /// The tap device that a descriptor of a process is attached to, as [`tun::answer`] writes it.
    Tap(i32, i32),
    /// The threads or the tracer that keep a process from ending, in words.
    Keepers(i32),
}

impl Question {
    /// How long to wait for an answer. On a busy machine the helper starts slowly, and questions about all threads of
    /// a process take longer.
    fn patience(self) -> Duration {
        match self {
            Self::Stat(_) | Self::Name(_) | Self::Describe(_) => Duration::from_secs(1),
            Self::Ending(_)
            | Self::Keepers(_)
            | Self::Resolver(_)
            | Self::OpenTaps(..)
            | Self::Tap(..) => Duration::from_secs(5),
        }
    }

    fn answer(self, proc: &Path) -> Vec<u8> {
        match self {
            Self::Stat(pid) => stat_text(&proc.join(pid.to_string())).unwrap_or_default(),
            Self::Name(pid) => super::name(pid).into_bytes(),
            Self::Describe(tid) => super::describe(tid).unwrap_or_default().into_bytes(),
            Self::Ending(pid) => ProcessEnd::encode(ending(pid)).into_bytes(),
            Self::Resolver(pid) => in_root::identified(
                &proc.join(pid.to_string()).join("root"),
                Path::new("etc/resolv.conf"),
                ANSWER as u64 / 2,
            ),
            Self::OpenTaps(pid, tables) => open_taps::answer(&proc.join(pid.to_string()), tables),
            Self::Tap(pid, descriptor) => tun::answer(pid, descriptor),
            Self::Keepers(pid) => super::describe_keepers(pid).into_bytes(),
        }
    }
}

/// Reads /proc in a helper process. If no answer comes within seconds, that is an error.
#[derive(Debug)]
pub(crate) struct Apart {
    proc: PathBuf,
    is_here: bool,
    helper: Option<Helper>,
    /// Helpers that did not answer.
    left: Vec<Child>,
}

#[derive(Debug)]
struct Helper {
    socket: OwnedFd,
    child: Child,
}

impl Apart {
    /// Uses a helper process, which [`Apart::prepare`] or the first question starts.
    pub(crate) fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            is_here: false,
            helper: None,
            left: Vec::new(),
        }
    }

    /// Reads in this process, for processes that are in no fence.
    #[cfg(test)]
    pub(crate) fn here(proc: &Path) -> Self {
        Self {
            is_here: true,
            ..Self::new(proc)
        }
    }

    /// Starts the helper. The next question reports a failure.
    pub(crate) fn prepare(&mut self) {
        if self.helper.is_none() && !self.is_here && !self.has_given_up() {
            self.helper = Helper::start(&self.proc).ok();
        }
    }

    /// Whether so many helpers are blocked that no more are started.
    pub(crate) fn has_given_up(&self) -> bool {
        self.left.len() >= LEFT
    }

    /// Asks a question. The answer is empty if there is no such process.
    ///
    /// # Errors
    /// If there is no helper, or it does not answer. It is left behind then.
    pub(crate) fn ask(&mut self, question: Question) -> Result<Vec<u8>> {
        if self.is_here {
            return Ok(question.answer(&self.proc));
        }
        self.left
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        if self.has_given_up() {
            bail!("{LEFT} helper processes are stuck in the kernel");
        }
        let helper = match &mut self.helper {
            Some(helper) => helper,
            none => none.insert(Helper::start(&self.proc)?),
        };
        helper.ask(question).inspect_err(|_| {
            // Its socket is closed, so it ends when the kernel lets it.
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
            // A helper that is left behind must not keep the pipes and the directory of the process that started this
            // one.
            .stderr(Stdio::null())
            .current_dir("/")
            // Signals from the terminal must not reach it.
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
            // Empty: the helper has ended.
            _ => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// Answers questions from standard input, a socket, until it is closed.
///
/// # Errors
/// If standard input cannot be read or written.
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
