//! qfence beside systemd's `IPAddressDeny=`, from what `cargo xtask bench` measured in the Debian 12 machine.
//!
//! `systemd [--quick] [--json FILE] <LINES`

use std::{io, process::ExitCode};

use anyhow::Context as _;
use tests::bench::{self, systemd::tabulate};

fn main() -> ExitCode {
    bench::main("systemd", |_, report| {
        let lines = io::read_to_string(io::stdin()).context("read standard input")?;
        tabulate(lines.lines(), report)
    })
}
