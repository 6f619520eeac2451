//! Finds out whether and how a process ends, from /proc.

use std::{fs, io, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use nix::{libc, sys::utsname::uname};

use super::stat::{Stat, has_kill, is_ending, is_kill_pending, threads};
use crate::base::release::{self, Version};

/// How a process ends that still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// By SIGKILL; or by another signal while its first thread is still in a system call, which looks the same.
    Killed,
    /// By itself, or by another signal that its first thread has acted on. It may still close files, for example.
    Leaving,
    /// By itself, or by a signal other than SIGKILL. Its first thread has ended. The status is that of the process,
    /// if it can be read. The parent does not get it as long as other threads or a tracer keep the process
    /// (`delay_group_leader` in kernel/signal.c, `wait_consider_task` in kernel/exit.c).
    Kept(Option<ExitStatus>),
}

impl ProcessEnd {
    /// Encodes as a word and the number of a status; as nothing for a process that is not ending.
    pub(super) fn encode(ending: Option<Self>) -> String {
        match ending {
            None => String::new(),
            Some(Self::Killed) => "killed".to_owned(),
            Some(Self::Leaving) => "leaving".to_owned(),
            Some(Self::Kept(None)) => "kept".to_owned(),
            Some(Self::Kept(Some(status))) => format!("kept {}", status.into_raw()),
        }
    }

    /// Decodes it; `None` if the text is invalid.
    pub(super) fn decode(words: &str) -> Option<Option<Self>> {
        Some(match words.split_once(' ') {
            None if words.is_empty() => None,
            None if words == "killed" => Some(Self::Killed),
            None if words == "leaving" => Some(Self::Leaving),
            None if words == "kept" => Some(Self::Kept(None)),
            Some(("kept", status)) => {
                let status = ExitStatus::from_raw(status.parse().ok()?);
                Some(Self::Kept(Some(status)))
            }
            _ => return None,
        })
    }
}

/// How a process ends that still exists; `None` if it is not ending. A process that continues without its first
/// thread is not ending.
pub(super) fn ending(pid: i32) -> Option<ProcessEnd> {
    let stat = Stat::of_process(pid)?;
    let is_ending = |tid: i32| is_ending(tid) != Some(false);
    if stat.state == 'X' || !is_ending(pid) || !threads(pid).into_iter().all(is_ending) {
        return None;
    }
    let is_in_a_call = !stat.is_exiting && is_kill_pending(pid);
    Some(
        if stat.signal() == libc::SIGKILL || (is_in_a_call && is_by_signal(pid, &stat)) {
            ProcessEnd::Killed
        } else if stat.state == 'Z' {
            // If this is refused, the kernel hides the status. A process that has ended has no executable, which is
            // another error.
            let hidden = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            let is_hidden = fs::read_link(format!("/proc/{pid}/exe")).is_err_and(hidden);
            ProcessEnd::Kept((!is_hidden).then(|| ExitStatus::from_raw(stat.code)))
        } else {
            ProcessEnd::Leaving
        },
    )
}

/// Whether a process for which SIGKILL is pending ends by a signal, rather than by one of its threads. Before Linux
/// 5.17 this is known only if kill(2) sent SIGKILL.
fn is_by_signal(pid: i32, stat: &Stat) -> bool {
    let tells = || {
        let release = uname().ok()?.release().to_str().and_then(release::parse)?;
        Some(release >= Version::STAT_TELLS_THE_END_OF_ALL)
    };
    stat.signal() != 0 || has_kill(pid, "ShdPnd:") || (stat.code == 0 && tells() != Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_the_same_once_it_was_told() {
        let status = ExitStatus::from_raw(0x89);
        for ending in [
            None,
            Some(ProcessEnd::Killed),
            Some(ProcessEnd::Leaving),
            Some(ProcessEnd::Kept(None)),
            Some(ProcessEnd::Kept(Some(status))),
        ] {
            assert_eq!(
                ProcessEnd::decode(&ProcessEnd::encode(ending)),
                Some(ending)
            );
        }
        for odd in ["kept x", "gone", "killed 9", " "] {
            assert_eq!(ProcessEnd::decode(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn who_was_not_waited_for_has_ended_with_its_status() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while Stat::of(pid).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        let status = ExitStatus::from_raw(7 << 8);
        assert_eq!(ending(pid), Some(ProcessEnd::Kept(Some(status))));
        child.wait().unwrap();
        assert_eq!(ending(pid), None);
    }
}
