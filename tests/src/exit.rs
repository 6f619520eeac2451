//! The end of a program that tests, benchmarks or xtask start.

use std::{
    io::{Write as _, stderr},
    process::ExitCode,
};

use anyhow::Result;

/// The exit status for a result. An error is printed on standard error, after `prefix` and a colon.
pub fn exit_code(prefix: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "{prefix}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
