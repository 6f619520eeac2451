//! Resource limits of the caller are meant for the command. A process in the fence could use them to end the
//! supervisor, so the supervisor lifts them for itself.

use std::{ffi::CStr, fs, io, os::fd::OwnedFd};

use anyhow::{Context, Result};
use nix::{
    fcntl::{OFlag, open, openat},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
    unistd::write,
};

/// RLIMIT_MEMLOCK: before Linux 5.11, maps count against it. The others send SIGXFSZ or SIGXCPU: a process in the fence
/// could cause that with a long log or with work for the supervisor.
const LIMITS: [Resource; 3] = [
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_CPU,
];

/// Where the information about processes is.
const PROC: &CStr = c"/proc";

/// The OOM score adjustment: how likely the kernel ends a process when memory is short (proc_pid_oom_score_adj(5)).
const OOM: &CStr = c"/proc/self/oom_score_adj";

/// [`OOM`] below [`PROC`].
const OOM_BELOW: &CStr = c"self/oom_score_adj";

/// Excludes a process.
const NEVER: &str = "-1000";

/// The lifted limits, which the command gets back.
#[derive(Clone, Copy, Debug)]
pub struct Lifted {
    /// The soft and hard limits.
    limits: [(u64, u64); LIMITS.len()],
    /// The previous content of [`OOM`], if it was changed, and its length in bytes.
    oom: Option<([u8; NEVER.len()], usize)>,
    /// The error if the kernel could not be told to exclude this process.
    unspared: Option<i32>,
}

impl Lifted {
    /// Lifts the limits of this process, and excludes it from being ended when memory is short. Otherwise a fenced
    /// process could start many small processes, each smaller than the supervisor.
    ///
    /// # Errors
    /// If a limit cannot be read. A limit that cannot be lifted is not an error: if it is reached, the kernel reports
    /// that.
    pub fn lift() -> Result<Self> {
        let limits = lift_limits()?;
        let (oom, unspared) = match spare(NEVER) {
            Ok(before) => (before, None),
            Err(error) => (None, error.raw_os_error()),
        };
        Ok(Self {
            limits,
            oom,
            unspared,
        })
    }

    /// The error if the kernel may end this process when memory is short. Root of a container may lack
    /// CAP_SYS_RESOURCE.
    #[must_use]
    pub fn why_unspared(&self) -> Option<io::Error> {
        self.unspared.map(io::Error::from_raw_os_error)
    }

    /// Opens the directory by which [`Self::restore`] writes, if it writes anything. To be called before the mounts of the
    /// command are read-only: the descriptor keeps the mount on which it was opened.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn proc(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = || open(PROC, flags, Mode::empty()).context("cannot open /proc");
        self.oom.map(|_| open()).transpose()
    }

    /// Restores the limits of this process, a child that is about to execute the command. Uses system calls only. To be
    /// called as root.
    ///
    /// # Errors
    /// The errors of these system calls.
    pub(super) fn restore(&self, proc: Option<&OwnedFd>) -> io::Result<()> {
        for ((soft, hard), resource) in self.limits.into_iter().zip(LIMITS) {
            setrlimit(resource, soft, hard)?;
        }
        if let (Some((before, length)), Some(proc)) = (&self.oom, proc) {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = openat(proc, OOM_BELOW, flags, Mode::empty())?;
            // After root has written the value, other users cannot write a lower one (`__set_oom_adj` in
            // fs/proc/base.c).
            write(&file, before.get(..*length).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Lifts the limits of this process; returns the previous ones.
///
/// # Errors
/// If a limit cannot be read. A limit that cannot be lifted is not an error: if it is reached, the kernel reports that.
pub fn lift_limits() -> Result<[(u64, u64); LIMITS.len()]> {
    let mut limits = [(0, 0); LIMITS.len()];
    for (limit, resource) in limits.iter_mut().zip(LIMITS) {
        *limit =
            getrlimit(resource).with_context(|| format!("cannot read the limit {resource:?}"))?;
        if setrlimit(resource, u64::MAX, u64::MAX).is_err() {
            // Every process may raise its soft limit to the hard limit.
            let _ = setrlimit(resource, limit.1, limit.1);
        }
    }
    Ok(limits)
}

/// Writes `word` to [`OOM`]; returns the previous content if it was different.
fn spare(word: &str) -> io::Result<Option<([u8; NEVER.len()], usize)>> {
    let path = OOM.to_str().map_err(io::Error::other)?;
    let text = fs::read_to_string(path)?;
    let before = text.trim_end();
    if before == word {
        return Ok(None);
    }
    let mut kept = [0; NEVER.len()];
    kept.get_mut(..before.len())
        .ok_or(io::ErrorKind::InvalidData)?
        .copy_from_slice(before.as_bytes());
    fs::write(path, word)?;
    Ok(Some((kept, before.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_given_back() {
        let now = || fs::read_to_string(OOM.to_str().unwrap()).unwrap();
        let before = now();
        // Every process may increase its value.
        let oom = spare("900").unwrap();
        assert_eq!(now(), "900\n");
        let lifted = Lifted {
            limits: LIMITS.map(|resource| getrlimit(resource).unwrap()),
            oom,
            unspared: None,
        };
        let proc = lifted.proc().unwrap();
        lifted.restore(proc.as_ref()).unwrap();
        assert_eq!(now(), before);
        assert!(spare(before.trim_end()).unwrap().is_none());
    }
}
