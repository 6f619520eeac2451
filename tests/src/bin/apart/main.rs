//! `apart PROGRAM [ARGUMENT…]`: runs a test program with a cgroup hierarchy, a bpffs and a /run of its own, for
//! `cargo xtask test`. See [`tests::apart`].

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use tests::apart::{code_of, run};

#[expect(clippy::print_stderr, reason = "this is a program")]
fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("apart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().context("apart PROGRAM [ARGUMENT…]")?;
    let arguments: Vec<_> = arguments.collect();
    // The test runner lists the tests of every program first. Listing runs no test, so it needs no isolation.
    if arguments.iter().any(|argument| argument == "--list") {
        let error = Command::new(&program).args(arguments).exec();
        return Err(error).with_context(|| format!("run {}", program.display()));
    }
    Ok(run(&program, &arguments).map(code_of)?.into())
}
