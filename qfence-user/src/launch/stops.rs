//! Whether the command is stopped, as the kernel reports it to its parent.

use nix::{sys::wait::WaitPidFlag, unistd::Pid};

use super::child_status::{self, ChildStatus, let_go};

/// Whether the command is stopped now. It may have gone on since it was reported.
#[must_use]
pub fn is_stopped(command: Pid) -> bool {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    reported(command, flags) == Some(ChildStatus::Stopped)
}

/// Whether the command is stopped now; if so, that is not reported again, and only another stop is.
#[must_use]
pub fn take_stop(command: Pid) -> bool {
    match reported(command, WaitPidFlag::WSTOPPED) {
        Some(ChildStatus::Stopped) => true,
        // It is not reported again, so this is the time.
        Some(ChildStatus::Trapped(signal)) => {
            // It may have been killed.
            let _ = let_go(command, signal);
            false
        }
        _ => false,
    }
}

/// Whether the command has gone on since [`take_stop`], whatever it did then: that it goes on is reported until it
/// stops anew, and that is reported then (`wait_task_stopped` and `wait_task_continued` in kernel/exit.c).
#[must_use]
pub fn has_gone_on(command: Pid) -> bool {
    let changes = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOWAIT;
    matches!(
        reported(command, changes),
        Some(ChildStatus::Stopped | ChildStatus::Continued | ChildStatus::Trapped(_))
    )
}

/// What the kernel reports of a child.
fn reported(child: Pid, flags: WaitPidFlag) -> Option<ChildStatus> {
    let reported = child_status::next(Some(child), flags | WaitPidFlag::WNOHANG);
    reported.ok().flatten().map(|(_, change)| change)
}
