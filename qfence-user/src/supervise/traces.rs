//! Prints what the programs trace, when that is asked for.

use std::{fmt, os::fd::AsFd as _, thread};

use anyhow::{Context, Result};
use aya_log::EbpfLogger;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::base::console::write_line;

/// Prints traces as long as this process runs, on a thread of its own: a process in the fence makes as many as it
/// likes, and may stop the terminal that they are printed to.
///
/// # Errors
/// If there can be no thread.
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

/// Not by `notify`: there are so many that its other lines would find no room.
fn print_line(message: fmt::Arguments<'_>) {
    // Nobody is left to be told.
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
