//! qfence beside systemd's `IPAddressDeny=`, in the Debian 12 machine: what the script there prints.

use std::path::Path;

use anyhow::Result;

use crate::{report, vm::Booted};

/// The benchmark's name.
pub(super) const NAME: &str = "systemd";
/// What runs in the machine.
const SCRIPT: &str = "beside-systemd";

/// Measures; the lines are for the benchmark of that name (`tests/src/bench/systemd.rs`). Without a machine there is one
/// line with the reason; a failure in the machine is an error.
pub(super) fn measure(program: &Path, quick: bool) -> Result<Vec<String>> {
    if quick {
        return Ok(missing(
            "a machine that boots takes too long for a first look",
        ));
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
