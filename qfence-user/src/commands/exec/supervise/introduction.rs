//! Tells readers of the record, now and later, which process is the command.

use std::sync::OnceLock;

use anyhow::Result;

use crate::{
    base::paths::Paths,
    fence::{description::Description, guard::Fence},
    launch::child::Starting,
    record::proc::{self, ProcessId},
};

/// Stores the process of the command for the record, and in the description of the fence for later readers.
///
/// # Errors
/// If the description cannot be written.
pub(super) fn introduce(
    starting: &Starting,
    command: &OnceLock<ProcessId>,
    description: &mut Description,
    fence: &Fence,
    paths: &Paths,
) -> Result<()> {
    let process = starting
        .pid()
        .and_then(|pid| proc::identify(&paths.proc, pid.as_raw().cast_unsigned()).ok());
    if let Some(process) = process {
        // The cell is set only once.
        let _ = command.set(process);
    }
    if let (Some(qemu), Some(process)) = (&mut description.qemu, process) {
        qemu.process = Some(process);
    }
    if description.qemu.is_none() && description.open.is_empty() {
        return Ok(());
    }
    fence.describe(description)
}
