//! Prints the traces of the programs, if requested.

use std::{fmt, os::fd::AsFd as _, thread};

use anyhow::{Context, Result};
use aya_log::EbpfLogger;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::base::console::write_line;

/// Prints traces in a thread, as long as this process runs. A process in the fence can cause any number of them, and
/// can stop the terminal that they are printed to.
///
/// # Errors
/// If the thread cannot be started.
pub fn print(traces: EbpfLogger<Traces>) -> Result<()> {
    thread::Builder::new()
        .name("qfence-trace".into())
        .spawn(move || print_all(traces))
        .map(drop)
        .context("cannot start the thread that prints the traces")
}

fn print_all(mut traces: EbpfLogger<Traces>) {
    loop {
        let mut polled = [PollFd::new(traces.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => traces.flush(),
            Err(Errno::EINTR) => {}
            Err(errno) => return print_line(format_args!("cannot read the traces: {errno}")),
        }
    }
}

/// `notify` is not used: so many traces would leave no room for its other messages.
fn print_line(message: fmt::Arguments<'_>) {
    // If standard error fails, the error cannot be reported.
    let _ = write_line(&format!("qfence: {message}"));
}

/// Prints the traces of the programs.
pub struct Traces;

impl log::Log for Traces {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        print_line(format_args!("trace: {}", record.args()));
    }

    fn flush(&self) {}
}
