//! Whether the command is stopped, as the kernel reports it to the parent.

use nix::{sys::wait::WaitPidFlag, unistd::Pid};

use super::child_status::{self, ChildStatus, let_go};

/// Whether the command is stopped now. It may have continued since the report.
#[must_use]
pub fn is_stopped(command: Pid) -> bool {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    reported(command, flags) == Some(ChildStatus::Stopped)
}

/// Whether the command is stopped now. The report is consumed: only another stop is reported again.
#[must_use]
pub fn take_stop(command: Pid) -> bool {
    match reported(command, WaitPidFlag::WSTOPPED) {
        Some(ChildStatus::Stopped) => true,
        // This stop is not reported again, so the child must be detached now.
        Some(ChildStatus::Trapped(signal)) => {
            // The child may have been killed.
            let _ = let_go(command, signal);
            false
        }
        _ => false,
    }
}

/// Whether the command has continued since [`take_stop`], even if it has stopped again. The kernel reports this until
/// the next stop, which it then reports (`wait_task_stopped` and `wait_task_continued` in kernel/exit.c).
#[must_use]
pub fn has_gone_on(command: Pid) -> bool {
    let changes = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOWAIT;
    matches!(
        reported(command, changes),
        Some(ChildStatus::Stopped | ChildStatus::Continued | ChildStatus::Trapped(_))
    )
}

/// The kernel's report on a child.
fn reported(child: Pid, flags: WaitPidFlag) -> Option<ChildStatus> {
    let reported = child_status::next(Some(child), flags | WaitPidFlag::WNOHANG);
    reported.ok().flatten().map(|(_, change)| change)
}
