//! Changes of children, as the kernel reports them to their parent (waitid(2)).
//!
//! A child can make this process its tracer (`PTRACE_TRACEME`). Each signal to the child then stops it until the tracer
//! continues it. The kernel reports that stop even if waitid(2) was not asked for stops (`wait_task_stopped` in
//! kernel/exit.c). This process traces no child: it detaches, and the child continues without a tracer.

use std::{mem, ptr};

use nix::{
    errno::Errno,
    libc::{self, c_void},
    sys::wait::WaitPidFlag,
    unistd::Pid,
};

/// A change of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildStatus {
    /// It has ended.
    Ended,
    /// A signal has stopped it.
    Stopped,
    /// It has continued after a stop.
    Continued,
    /// It has stopped for its tracer, this process, before this signal is delivered; 0 for no signal.
    Trapped(i32),
}

/// A change of a child, or of a child or thread whose tracer is this process; `None` if there is none.
///
/// nix's function is not used: it fails for real-time signals, and consumes the report anyway.
///
/// # Errors
/// The errors of waitid(2).
pub(super) fn next(
    child: Option<Pid>,
    flags: WaitPidFlag,
) -> Result<Option<(Pid, ChildStatus)>, Errno> {
    let (kind, id) = match child {
        Some(child) => (libc::P_PID, child.as_raw().unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    // SAFETY: a struct of integers and addresses, for which zero is a valid value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one such struct.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, flags.bits()) })?;
    // SAFETY: waitid fills in the fields of SIGCHLD, and leaves zeros if there is no change.
    let pid = unsafe { info.si_pid() };
    // SAFETY: waitid fills in the fields of SIGCHLD, and leaves zeros if there is no change.
    let status = unsafe { info.si_status() };
    let change = match info.si_code {
        _ if pid <= 0 => return Ok(None),
        libc::CLD_STOPPED => ChildStatus::Stopped,
        libc::CLD_CONTINUED => ChildStatus::Continued,
        // A larger number is a ptrace event, which delivers no signal.
        libc::CLD_TRAPPED if status > libc::SIGRTMAX() => ChildStatus::Trapped(0),
        libc::CLD_TRAPPED => ChildStatus::Trapped(status),
        _ => ChildStatus::Ended,
    };
    Ok(Some((Pid::from_raw(pid), change)))
}

/// Detaches from a child that is [`ChildStatus::Trapped`], and delivers the signal to it.
///
/// # Errors
/// ESRCH if the child was killed, or if its tracer is another thread of this process: the one that made it, which
/// detaches when it ends (`exit_ptrace` in kernel/ptrace.c).
pub(super) fn let_go(child: Pid, signal: i32) -> Result<(), Errno> {
    let signal = if signal == libc::SIGTRAP && is_of_exec(child) {
        0
    } else {
        signal
    };
    let none = ptr::null_mut::<c_void>();
    let data = ptr::without_provenance_mut::<c_void>(signal.unsigned_abs() as usize);
    // SAFETY: no memory of this process is read or written. The data is the number of a signal.
    let detached = unsafe { libc::ptrace(libc::PTRACE_DETACH, child.as_raw(), none, data) };
    Errno::result(detached).map(drop)
}

/// Whether the signal of a trapped child is the one that the kernel sends to a traced process after an exec
/// (`ptrace_event` in include/linux/ptrace.h). Without a tracer there would be no such signal, and it would end the
/// child.
fn is_of_exec(child: Pid) -> bool {
    let none = ptr::null_mut::<c_void>();
    // SAFETY: as above.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let to = (&raw mut info).cast::<c_void>();
    // SAFETY: the kernel writes one such struct.
    let asked = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, child.as_raw(), none, to) };
    // SAFETY: SI_USER fills in the sender.
    asked == 0 && info.si_code == libc::SI_USER && unsafe { info.si_pid() } == child.as_raw()
}
