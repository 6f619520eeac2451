//! The short form of verification, for `exec --verify`. It runs in another process, because it moves into namespaces
//! that the command must not be in.

use std::{
    io::{self, Write},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{program, report::HOLDS};

/// Runs the short form in another process; returns the report in one sentence.
///
/// # Errors
/// If the fence does not hold or nothing was shown. In this case the report is on standard error.
pub fn verify_first() -> Result<String> {
    let output = program::command()?
        .arg("--short")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start `qfence-verify`")?;
    let report = String::from_utf8_lossy(&output.stdout);
    let sentence = report.lines().next_back().unwrap_or_default();
    // Another program with this name could also exit with success, so its output is checked.
    if !output.status.success() || !sentence.starts_with(HOLDS) {
        // If standard error cannot be written to, there is nowhere to report that.
        let _ = io::stderr().write_all(report.as_bytes());
        bail!(
            "it is not shown that a fence holds on this kernel ({}), so the command was not \
             started: see `qfence-user verify` and `qfence-user doctor`",
            output.status
        );
    }
    Ok(sentence.to_owned())
}
