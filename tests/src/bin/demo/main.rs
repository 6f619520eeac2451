//! `demo PROGRAM`: the same guest twice, without and with a fence of that qfence-user, and what it reached each time. For
//! `cargo xtask demo`, as root.

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

/// Boots the guests and prints the comparison; an error if that is not what qfence promises.
fn compare(program: &Path) -> Result<()> {
    let comparison = guests::compare(program)?;
    writeln!(stdout(), "\n{comparison}").context("write to standard output")?;
    if !comparison.is_as_promised() {
        bail!("the demo did not go as it should: see the verdict above");
    }
    Ok(())
}
