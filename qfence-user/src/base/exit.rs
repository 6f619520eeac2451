//! Exit statuses of `exec`: the command's own, or one of three that podman also uses.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use nix::sys::signal::Signal;

/// qfence itself failed. Nothing ran, or the command was killed.
pub const FAILED: u8 = 125;
/// The command was found and could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;

/// The status for a shell: the command's own, or 128 plus the number of the signal that ended it.
#[must_use]
pub fn of_command(ended: ExitStatus) -> u8 {
    let status = ended
        .code()
        .or_else(|| ended.signal().map(|signal| 128 + signal));
    // The kernel keeps eight bits of a status, and signals end at 64.
    status
        .and_then(|status| u8::try_from(status).ok())
        .unwrap_or(FAILED)
}

/// The status for a shell after a signal.
#[must_use]
pub fn of_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_as_shells_tell_it() {
        // As wait(2) encodes them: the status in the high byte, the signal in the low one.
        for (raw, status) in [(3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143), (64, 192)] {
            assert_eq!(of_command(ExitStatus::from_raw(raw)), status);
        }
    }
}
