//! The verbs of the command line, one file each. [`verifier`] belongs to `qfence-verify`.

pub mod attach;
pub mod dead_man;
mod devices;
pub mod doctor;
pub mod exec;
pub mod explain;
mod libvirt;
mod logging;
pub mod logs;
pub mod metrics;
mod named;
mod nri;
mod oci;
pub mod policy;
pub mod ps;
mod replaced;
pub mod rm;
pub mod set;
pub mod stand_in;
pub mod timer;
pub mod top;
pub mod verifier;
pub mod verify;
mod version;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use clap::{Parser, error::ErrorKind};
use nix::unistd::geteuid;
use serde::Serialize;

use crate::{
    base::{
        console::{flush, notify},
        exit::{FAILED, of_signal},
        interruptible::Interrupted,
        paths::Paths,
        printable::{printable_json, printable_lines},
        process::helper,
    },
    cli::{Cli, Verb},
    supervise::established,
};

/// Runs the command line of this process, `qfence-user`.
#[must_use]
pub fn run() -> ExitCode {
    match parse() {
        Ok(cli) => end(follow(&cli)),
        Err(status) => status,
    }
}

fn follow(cli: &Cli) -> Result<u8> {
    let paths = Paths::default();
    match &cli.verb {
        Verb::Exec(options) => exec::run(options, &paths),
        Verb::Attach(options) => attach::run(options, &paths).map(|()| 0),
        Verb::Ps(options) => ps::run(options, &paths).map(|()| 0),
        Verb::Rm(options) => rm::run(options, &paths),
        Verb::Explain(options) => explain::run(options, &paths).map(|()| 0),
        Verb::Logs(options) => logs::run(options, &paths).map(|()| 0),
        Verb::Top(options) => top::run(options, &paths).map(|()| 0),
        Verb::Metrics(options) => metrics::run(options, &paths).map(|()| 0),
        Verb::Policy(options) => policy::run(options, &paths),
        Verb::Set(options) => set::run(options, &paths).map(|()| 0),
        Verb::Doctor(options) => doctor::run(options, &paths),
        Verb::Verify(options) => verify::run(options).map(|never| match never {}),
        Verb::OciHook(options) => oci::hook::run(options, &paths).map(|()| 0),
        Verb::OciRuntime(options) => oci::runtime::run(options).map(|never| match never {}),
        Verb::NriPlugin(options) => nri::run(options, &paths).map(|()| 0),
        Verb::LibvirtHook(options) => libvirt::run(options, &paths).map(|()| 0),
        Verb::StandIn(options) => stand_in::run(options, &paths).map(|()| 0),
        Verb::DeadMan { name } => dead_man::run(name, &paths).map(|()| 0),
        Verb::Timer(options) => timer::run(options, &paths).map(|()| 0),
        Verb::SockDiag => established::serve().map(|()| 0),
        Verb::StatReader { proc } => helper::serve(proc).map(|()| 0),
    }
}

/// Parses the command line. If it is invalid, or asks for help, prints the message and returns the exit status.
fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if error.kind() == ErrorKind::DisplayVersion {
            return end(print(&version::text(T::command().get_name())).map(|()| 0));
        }
        // This includes --help and --version, which are printed to standard output.
        let _ = error.print();
        if error.use_stderr() {
            FAILED.into()
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Prints an error, and returns the exit status.
fn end(status: Result<u8>) -> ExitCode {
    let status = status.unwrap_or_else(|error| {
        notify(format_args!("error: {error:#}"));
        let interrupted = error.downcast_ref::<Interrupted>();
        interrupted.map_or(FAILED, |interrupted| of_signal(interrupted.signal))
    });
    flush();
    status.into()
}

/// Fails unless this process is root, which is needed to load programs and make cgroups.
fn require_root() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "this must be run as root: try `sudo qfence-user …`"
    );
    Ok(())
}

/// Prints the output of a command as text.
fn print(text: &str) -> Result<()> {
    print_safe(&printable_lines(text))
}

/// Prints the output of a command as one line of JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print_safe(&printable_json(serde_json::to_string(value)?))
}

fn print_safe(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // The reader does not want more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
