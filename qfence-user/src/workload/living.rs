//! A process that is held by a descriptor, so that its number can be compared with what was written down of it.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::base::process::helper::{Apart, Question};

/// The index of the start time among the fields of /proc/PID/stat behind the name (proc_pid_stat(5), field 22).
const STARTED: usize = 19;

/// A process that lived when it was opened. What was read of its number is of this process if it still lives
/// afterwards.
#[derive(Debug)]
pub(super) struct Living {
    pid: Pid,
    descriptor: OwnedFd,
}

impl Living {
    /// # Errors
    /// If there is no such process.
    pub(super) fn open(pid: Pid) -> Result<Self> {
        let id = rustix::process::Pid::from_raw(pid.as_raw());
        let id = id.with_context(|| format!("{pid} is no process id"))?;
        match pidfd_open(id, PidfdFlags::empty()) {
            Ok(descriptor) => Ok(Self { pid, descriptor }),
            Err(rustix::io::Errno::SRCH) => bail!("the process {pid} has ended"),
            Err(errno) => Err(errno).with_context(|| format!("cannot open the process {pid}")),
        }
    }

    /// When it was started, in ticks since boot.
    ///
    /// # Errors
    /// If it has ended, or nothing could be read in time.
    pub(super) fn started(&self, apart: &mut Apart) -> Result<u64> {
        let context = || format!("cannot read the start time of the process {}", self.pid);
        let pid = u32::try_from(self.pid.as_raw())?;
        let stat = apart.ask(Question::Stat(pid)).with_context(context)?;
        started(&stat).with_context(context)
    }

    /// # Errors
    /// If it has ended.
    pub(super) fn ensure_lives(&self) -> Result<()> {
        let mut polled = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        let ended = loop {
            match poll(&mut polled, PollTimeout::ZERO) {
                Ok(ready) => break ready > 0,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        ensure!(!ended, "the process {} has ended", self.pid);
        Ok(())
    }
}

/// The start time in the text of `stat`. The name before the fields can contain any bytes.
fn started(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(STARTED)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;

    #[test]
    fn the_start_time_is_behind_a_name_that_may_contain_anything() {
        let stat =
            b"552 (a) b 1 2) S 530 552 552 0 -1 4194560 195 0 0 0 0 1 0 0 20 0 1 0 1277507 1 2 3\n";
        assert_eq!(started(stat), Some(1_277_507));
        for text in ["", "552 (busybox) S 1 2", "552 busybox"] {
            assert_eq!(started(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_process_that_has_ended_is_noticed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let living = Living::open(pid).unwrap();
        living.ensure_lives().unwrap();
        let mut apart = Apart::here(Path::new("/proc"));
        assert!(living.started(&mut apart).unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(living.ensure_lives().is_err());
        assert!(living.started(&mut apart).is_err());
        assert!(Living::open(pid).is_err());
    }
}
