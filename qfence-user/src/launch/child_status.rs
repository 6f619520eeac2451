//! Changes of children, as the kernel reports them to their parent (waitid(2)).
//!
//! A child can make this process its tracer by itself (`PTRACE_TRACEME`). Each signal to it is then a stop until the
//! tracer continues it, and the kernel reports that stop whether it is asked for or not (`wait_task_stopped` in
//! kernel/exit.c). This process traces nobody: it detaches, and the child goes on as one without a tracer.

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
    /// It goes on after a stop.
    Continued,
    /// It is stopped for this process as its tracer, before this signal is delivered; 0 for no signal.
    Trapped(i32),
}

/// A change of a child, or of any child or thread that has this process as tracer; `None` if there is none.
///
/// Not nix's: that fails for real-time signals, and takes the report all the same.
///
/// # Errors
/// Those of waitid(2).
pub(super) fn next(
    child: Option<Pid>,
    flags: WaitPidFlag,
) -> Result<Option<(Pid, ChildStatus)>, Errno> {
    let (kind, id) = match child {
        Some(child) => (libc::P_PID, child.as_raw().unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    // SAFETY: a struct of integers and addresses, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one such struct.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, flags.bits()) })?;
    // SAFETY: waitid fills in what SIGCHLD has, and leaves zeros if there is nobody.
    let pid = unsafe { info.si_pid() };
    // SAFETY: likewise.
    let status = unsafe { info.si_status() };
    let change = match info.si_code {
        _ if pid <= 0 => return Ok(None),
        libc::CLD_STOPPED => ChildStatus::Stopped,
        libc::CLD_CONTINUED => ChildStatus::Continued,
        // More than a signal is an event of tracing, which delivers none.
        libc::CLD_TRAPPED if status > libc::SIGRTMAX() => ChildStatus::Trapped(0),
        libc::CLD_TRAPPED => ChildStatus::Trapped(status),
        _ => ChildStatus::Ended,
    };
    Ok(Some((Pid::from_raw(pid), change)))
}

/// Detaches from a child that is [`ChildStatus::Trapped`], and has the signal delivered to it.
///
/// # Errors
/// ESRCH if it was killed, or if another thread of this process is its tracer: the one that made it, which detaches
/// when it ends (`exit_ptrace` in kernel/ptrace.c).
pub(super) fn let_go(child: Pid, signal: i32) -> Result<(), Errno> {
    let signal = if signal == libc::SIGTRAP && is_of_exec(child) {
        0
    } else {
        signal
    };
    let none = ptr::null_mut::<c_void>();
    let data = ptr::without_provenance_mut::<c_void>(signal.unsigned_abs() as usize);
    // SAFETY: no memory of this process is read or written: the data is the number of a signal.
    let detached = unsafe { libc::ptrace(libc::PTRACE_DETACH, child.as_raw(), none, data) };
    Errno::result(detached).map(drop)
}

/// Whether the signal of a trapped child is the one that the kernel sends to whoever executes a program while traced
/// (`ptrace_event` in include/linux/ptrace.h): without a tracer there would be none, and it would end the child.
fn is_of_exec(child: Pid) -> bool {
    let none = ptr::null_mut::<c_void>();
    // SAFETY: as above.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let to = (&raw mut info).cast::<c_void>();
    // SAFETY: the kernel writes one such struct.
    let asked = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, child.as_raw(), none, to) };
    // SAFETY: SI_USER has the sender.
    asked == 0 && info.si_code == libc::SI_USER && unsafe { info.si_pid() } == child.as_raw()
}
