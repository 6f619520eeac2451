//! Whether the command is stopped, as the kernel reports it to its parent.

use nix::{
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
    unistd::Pid,
};

/// Whether the command is stopped now. It may have gone on since it was reported.
#[must_use]
pub fn is_stopped(command: Pid) -> bool {
    matches!(
        reported(command, WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT),
        Some(WaitStatus::Stopped(..))
    )
}

/// Whether the command is stopped now; if so, that is not reported again, and only another stop is.
#[must_use]
pub fn take_stop(command: Pid) -> bool {
    matches!(
        reported(command, WaitPidFlag::WSTOPPED),
        Some(WaitStatus::Stopped(..))
    )
}

/// Whether the command has gone on since [`take_stop`], whatever it did then: that it goes on is reported until it
/// stops anew, and that is reported then (`wait_task_stopped` and `wait_task_continued` in kernel/exit.c).
#[must_use]
pub fn has_gone_on(command: Pid) -> bool {
    let changes = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOWAIT;
    matches!(
        reported(command, changes),
        Some(WaitStatus::Stopped(..) | WaitStatus::Continued(_))
    )
}

/// What the kernel reports of a child.
fn reported(child: Pid, flags: WaitPidFlag) -> Option<WaitStatus> {
    waitid(Id::Pid(child), flags | WaitPidFlag::WNOHANG).ok()
}
