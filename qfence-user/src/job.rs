//! Job control: when the command stops, so does the supervisor, so that the shell gets its terminal
//! back; when it goes on, so does the command.

use std::fs::File;

use anyhow::{Context, Result};
use nix::{
    sys::{
        signal::{Signal, killpg, raise},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp},
};

/// Whether the command is stopped now. It may have gone on since it was reported.
#[must_use]
pub fn is_stopped(command: Pid) -> bool {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(command), flags), Ok(WaitStatus::Stopped(..)))
}

/// Stops this process as the command is stopped, if a shell is to see it: if the command is the
/// terminal's foreground job. Returns when both are to go on.
///
/// A command that is stopped in the background, by a `kill -STOP` say, stops alone.
///
/// # Errors
/// If the process cannot stop itself.
pub fn stop_along(command: Pid) -> Result<()> {
    // The controlling terminal, wherever the standard streams lead; without one there is no job.
    let Ok(terminal) = File::open("/dev/tty") else {
        return Ok(());
    };
    let own = getpgrp();
    let theirs = getpgid(Some(command)).unwrap_or(own);
    let foreground = tcgetpgrp(&terminal).ok();
    if foreground != Some(own) && foreground != Some(theirs) {
        return Ok(());
    }
    raise(Signal::SIGSTOP).context("cannot stop along with the command")?;

    // The shell has brought the job back: to the foreground, where the terminal is this group's.
    // A command in a group of its own (a shell, say) gets it from here.
    if theirs != own && tcgetpgrp(&terminal).ok() == Some(own) {
        let _ = tcsetpgrp(&terminal, theirs);
    }
    // It may have ended while both were stopped.
    let _ = killpg(theirs, Signal::SIGCONT);
    Ok(())
}
