//! Limits of the caller that are meant for the command, and would end the supervisor by what a process in the fence does.

use std::{fs, io};

use anyhow::{Context, Result};
use nix::{
    fcntl::{OFlag, open},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
    unistd::write,
};

/// Maps count against the first before Linux 5.11. What passes the others gets SIGXFSZ or SIGXCPU, by a log that a process
/// in the fence makes longer or by what that makes the supervisor do.
const LIMITS: [Resource; 3] = [
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_CPU,
];

/// How eagerly the kernel ends a process when memory is short (proc_pid_oom_score_adj(5)).
const OOM: &std::ffi::CStr = c"/proc/self/oom_score_adj";

/// Never.
const NEVER: &str = "-1000";

/// What was lifted, for the command to get back.
#[derive(Clone, Copy, Debug)]
pub struct Lifted {
    /// Soft and hard.
    limits: [(u64, u64); LIMITS.len()],
    /// What was in [`OOM`], if it is another now, and how many bytes that is.
    oom: Option<([u8; NEVER.len()], usize)>,
    /// Why the kernel does not spare this process.
    unspared: Option<i32>,
}

impl Lifted {
    /// Lifts them for this process, and keeps it from being what the kernel ends when memory is short: whatever a fenced
    /// process allocates, the supervisor is larger than each of many small ones.
    ///
    /// # Errors
    /// If they cannot be read. That a limit cannot be lifted matters if it is met, which the kernel says.
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

    /// Why the kernel may choose this process when memory is short: in a container root may have no CAP_SYS_RESOURCE.
    #[must_use]
    pub fn why_unspared(&self) -> Option<io::Error> {
        self.unspared.map(io::Error::from_raw_os_error)
    }

    /// Gives them back to this process, a child before it executes the command: by system calls alone, and as root.
    ///
    /// # Errors
    /// What these fail with.
    pub(super) fn restore(&self) -> io::Result<()> {
        for ((soft, hard), resource) in self.limits.into_iter().zip(LIMITS) {
            setrlimit(resource, soft, hard)?;
        }
        if let Some((before, length)) = &self.oom {
            let file = open(OOM, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            // As root writes it, nobody else may write less (`__set_oom_adj` in fs/proc/base.c).
            write(&file, before.get(..*length).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Lifts the limits for this process; returns what they were.
///
/// # Errors
/// If they cannot be read. That one cannot be lifted matters if it is met, which the kernel says.
pub fn lift_limits() -> Result<[(u64, u64); LIMITS.len()]> {
    let mut limits = [(0, 0); LIMITS.len()];
    for (limit, resource) in limits.iter_mut().zip(LIMITS) {
        *limit =
            getrlimit(resource).with_context(|| format!("cannot read the limit {resource:?}"))?;
        if setrlimit(resource, u64::MAX, u64::MAX).is_err() {
            // Up to there everybody may.
            let _ = setrlimit(resource, limit.1, limit.1);
        }
    }
    Ok(limits)
}

/// Has the kernel choose this process as `word` says; returns what was there before if it was another word.
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
        // More everybody may have.
        let oom = spare("900").unwrap();
        assert_eq!(now(), "900\n");
        let lifted = Lifted {
            limits: LIMITS.map(|resource| getrlimit(resource).unwrap()),
            oom,
            unspared: None,
        };
        lifted.restore().unwrap();
        assert_eq!(now(), before);
        assert!(spare(before.trim_end()).unwrap().is_none());
    }
}
