//! Compares qfence with systemd's `IPAddressDeny=`, in the Debian 12 machine.

use std::path::Path;

use anyhow::Result;

use crate::{report, vm::Booted};

/// The benchmark's name.
pub(super) const NAME: &str = "systemd";
/// The script that runs in the machine.
const SCRIPT: &str = "beside-systemd";

/// Runs the script and returns its lines, the input of the benchmark of that name (`tests/src/bench/systemd.rs`). If there
/// is no machine, the only line is the reason.
///
/// # Errors
/// If the script fails in the machine.
pub(super) fn measure(program: &Path, quick: bool) -> Result<Vec<String>> {
    if quick {
        return Ok(missing("booting a machine takes too long for a quick run"));
    }
    match Booted::for_command(program, SCRIPT) {
        Ok(machine) => report::during("connect, sendto and refusals, two minutes", || {
            machine.output()
        }),
        Err(error) => Ok(missing(&format!(
            "there is no Debian 12 machine: {error:#}"
        ))),
    }
}

fn missing(why: &str) -> Vec<String> {
    vec![serde_json::json!({ "missing": why }).to_string()]
}
