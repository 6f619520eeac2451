//! The short form, as `exec --verify` has it: in a process of its own, for it moves to namespaces that
//! the command is not to be in.

use std::{
    io::{self, Write},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{program, report::HOLDS};

/// Verifies in a process of its own; returns the report in a sentence.
///
/// # Errors
/// If the fence does not hold, or nothing is shown. The report is on standard error then.
pub fn verify_first() -> Result<String> {
    let output = program::command()?
        .arg("--short")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start `qfence-verify`")?;
    let report = String::from_utf8_lossy(&output.stdout);
    let sentence = report.lines().next_back().unwrap_or_default();
    // A program that is not the verifier may end well, too.
    if !output.status.success() || !sentence.starts_with(HOLDS) {
        // Nowhere is left to report a standard error that cannot be written to.
        let _ = io::stderr().write_all(report.as_bytes());
        bail!(
            "it is not shown that a fence holds on this kernel ({}), so the command was not \
             started: see `qfence-user verify` and `qfence-user doctor`",
            output.status
        );
    }
    Ok(sentence.to_owned())
}
