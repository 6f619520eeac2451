//! `session PROGRAM`: plays a session with that qfence-user at real terminals, and prints its picture, README's
//! docs/session.svg. Run as root by `cargo xtask session`.

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
