//! `session PROGRAM session|top`: runs that qfence-user at real terminals, and prints a picture of them: README's
//! docs/session.svg, or docs/top.svg. Run as root by `cargo xtask session`.

mod picture;
mod play;
mod stage;
mod top;

use std::{
    env,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use picture::Window;
use tests::exit::exit_code;

const USAGE: &str = "session PROGRAM session|top";

fn main() -> ExitCode {
    exit_code("error", run())
}

fn run() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let program = PathBuf::from(arguments.next().context(USAGE)?);
    let subject = arguments.next().context(USAGE)?;
    let picture = match subject.to_str() {
        Some("session") => {
            let terminals = play::play(&program)?;
            let windows = [
                Window::new("a terminal", terminals.fence.contents()),
                Window::new("meanwhile, another terminal", terminals.host.contents()),
            ];
            picture::draw("A session with qfence", &windows)
        }
        Some("top") => {
            let terminal = top::play(&program)?;
            let windows = [Window::new("qfence-user top", terminal.contents())];
            picture::draw("The fences of a host in top", &windows)
        }
        _ => bail!(USAGE),
    };
    writeln!(stdout(), "{picture}").context("write to standard output")
}
