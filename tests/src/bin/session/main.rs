//! `session PROGRAM`: prints docs/session.svg, README's picture of a session of that qfence-user, from real terminals. For
//! `cargo xtask session`, as root.

mod picture;
mod play;

use std::{
    env,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use picture::Window;
use tests::exit::exit_code;

fn main() -> ExitCode {
    exit_code("error", run())
}

fn run() -> Result<()> {
    let program = env::args_os().nth(1).map(PathBuf::from);
    let terminals = play::play(&program.context("session PROGRAM")?)?;
    let windows = [
        Window::new("a terminal", terminals.fence.contents()),
        Window::new("meanwhile, another terminal", terminals.host.contents()),
    ];
    writeln!(stdout(), "{}", picture::draw(&windows)).context("write to standard output")
}
