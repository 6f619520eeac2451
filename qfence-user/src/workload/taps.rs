//! The tap devices that other processes have open. A helper process looks at them: the processes can make that block.

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::base::process::{
    helper::{Apart, Question},
    open_taps::{self, OpenTaps, Tables},
    tun::{self, TapDevice},
};

/// The tap and macvtap devices that a process has open. `None` if root may not look at its open files.
///
/// # Errors
/// If its descriptors cannot all be looked at, or the helper does not answer.
pub(super) fn all(pid: Pid, tables: Tables, apart: &mut Apart) -> Result<Option<OpenTaps>> {
    let answer = apart.ask(Question::OpenTaps(pid.as_raw(), tables));
    answer
        .and_then(|answer| open_taps::decode(&answer))
        .with_context(|| format!("cannot look at the open files of the process {pid}"))
}

/// The tap device that a descriptor of a process is attached to; `None` if it is attached to none.
///
/// # Errors
/// If the helper cannot look, or does not answer.
pub(crate) fn of_descriptor(
    pid: Pid,
    descriptor: i32,
    apart: &mut Apart,
) -> Result<Option<TapDevice>> {
    let answer = apart.ask(Question::Tap(pid.as_raw(), descriptor));
    answer
        .and_then(|answer| tun::decode(&answer))
        .with_context(|| format!("cannot look at the descriptor {descriptor} of the process {pid}"))
}
