//! Reads /proc/PID/stat in a helper process, for the read can last for ever.
//!
//! The kernel holds the memory of the process meanwhile (`get_task_mm` in `do_task_stat`, fs/proc/array.c). If the process
//! ends then, it is the reader who takes the last mappings down (`exit_mmap` in mm/mmap.c), and for a file of a FUSE file
//! system that never answers that does not end (`fuse_vma_close` in fs/fuse/file.c), whatever signal the reader gets.

use std::{
    cell::RefCell,
    fmt,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{read, write},
};

use super::proc::{self, Directory, Stat};
use crate::{inherited, say::say};

/// The hidden verb.
pub const VERB: &str = "stat-reader";

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";

/// How long an answer is waited for. A busy machine takes a while to start the helper.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nobody is looked up after one that did not answer.
const PAUSE: Duration = Duration::from_secs(30);

/// How many helpers are left behind in the kernel before nobody is looked up any more.
const LEFT: usize = 8;

/// Where the files are read.
#[derive(Default)]
pub(super) struct Stats(RefCell<Way>);

#[derive(Default)]
enum Way {
    /// In this process: of what is no process of a fence.
    #[default]
    Here,
    /// In a helper.
    Apart(Apart),
}

#[derive(Default)]
struct Apart {
    helper: Option<Helper>,
    /// Those that did not answer.
    left: Vec<Child>,
    not_before: Option<Instant>,
}

struct Helper {
    socket: OwnedFd,
    child: Child,
}

impl Stats {
    /// Reads them in a helper process, which is started by [`Stats::prepare`], or when it is needed.
    pub(super) fn apart() -> Self {
        Self(RefCell::new(Way::Apart(Apart::default())))
    }

    /// Starts the helper, if there is to be one. What fails is said when it is needed.
    pub(super) fn prepare(&self, proc: &Path) {
        if let Way::Apart(apart) = &mut *self.0.borrow_mut()
            && apart.helper.is_none()
        {
            apart.helper = Helper::start(proc).ok();
        }
    }

    /// That of a process; `None` if there is none, or if that cannot be told.
    pub(super) fn of(&self, proc: &Path, pid: u32) -> Option<Stat> {
        match &mut *self.0.borrow_mut() {
            Way::Here => Directory::new(proc, pid).stat(),
            Way::Apart(apart) => apart.stat(proc, pid),
        }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stats")
    }
}

impl Apart {
    fn stat(&mut self, proc: &Path, pid: u32) -> Option<Stat> {
        if self.not_before.is_some_and(|time| Instant::now() < time) || self.left.len() >= LEFT {
            return None;
        }
        match self.ask(proc, pid) {
            Ok(text) => proc::parse(&text),
            Err(error) => {
                say(format_args!(
                    "error: cannot read what /proc says of process {pid}: {error:#}: attempts are on record without the \
                     executables of those who make them for {PAUSE:?}"
                ));
                self.not_before = Some(Instant::now() + PAUSE);
                // With its socket closed it ends, once the kernel lets it.
                self.left
                    .extend(self.helper.take().map(|helper| helper.child));
                self.left
                    .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
                None
            }
        }
    }

    fn ask(&mut self, proc: &Path, pid: u32) -> Result<Vec<u8>> {
        let helper = match &mut self.helper {
            Some(helper) => helper,
            none => none.insert(Helper::start(proc)?),
        };
        Ok(helper.ask(pid)?)
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

    fn ask(&self, pid: u32) -> io::Result<Vec<u8>> {
        write(&self.socket, &pid.to_ne_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut answer = [0; proc::STAT + 4];
        let count = read(&self.socket, &mut answer)?;
        match answer
            .get(..count)
            .and_then(|answer| answer.split_at_checked(4))
        {
            Some((number, text)) if number == pid.to_ne_bytes() => Ok(text.to_vec()),
            // Nothing: it has ended.
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads what is asked for by standard input, a socket, until nobody asks any more.
///
/// # Errors
/// If standard input is nothing of the kind.
pub fn serve(proc: &Path) -> Result<()> {
    inherited::close_all_but(0)?;
    let stdin = io::stdin();
    let mut number = [0; 4];
    while read(&stdin, &mut number).context("cannot read standard input")? == number.len() {
        let text = Directory::new(proc, u32::from_ne_bytes(number)).stat_text();
        let answer = [&number[..], &text.unwrap_or_default()].concat();
        write(&stdin, &answer).context("cannot write to standard input")?;
    }
    Ok(())
}
