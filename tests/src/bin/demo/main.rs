//! `demo PROGRAM`: boots the same guest without and with a fence of that qfence-user, and compares the destinations that
//! it reached. Run as root by `cargo xtask demo`.

mod guests;
mod outcome;

use std::{
    env,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use tests::exit::exit_code;

fn main() -> ExitCode {
    exit_code("error", run())
}

fn run() -> Result<()> {
    let program = env::args_os().nth(1).map(PathBuf::from);
    compare(&program.context("demo PROGRAM")?)
}

/// Boots the guests and prints the comparison.
///
/// # Errors
/// If the result is not the one that qfence promises.
fn compare(program: &Path) -> Result<()> {
    let comparison = guests::compare(program)?;
    writeln!(stdout(), "\n{comparison}").context("write to standard output")?;
    if !comparison.is_as_promised() {
        bail!("the demo failed: see the verdict above");
    }
    Ok(())
}
