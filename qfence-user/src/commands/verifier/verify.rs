//! Runs `verify`, and the hidden verbs of its processes except `probe`.

use std::thread;

use anyhow::Result;

use super::super::{print, print_json, require_root};
use crate::{
    base::{exit::of_signal, inherited, paths::Paths},
    cli::{OpenDevice, SystemCall, Verifier, Verify},
    verify::{
        Ended, Extent, closures, container, device, groups, keys, own_listener, own_netns, program,
        service, verify,
    },
};

/// Runs `verify`; returns the exit status.
///
/// # Errors
/// If an attempt cannot be made, the calling program is of another build, or standard output cannot be written to.
pub fn run(options: &Verifier, paths: &Paths) -> Result<u8> {
    require_root()?;
    if let Some(build) = &options.build {
        program::check(build)?;
    }
    let options = &options.verify;
    inherited::close_all_but(0)?;
    let extent = match options {
        Verify { short: true, .. } => Extent::Short,
        Verify { closures: true, .. } => Extent::Closures,
        Verify { devices: true, .. } => Extent::Devices,
        _ => Extent::Whole,
    };
    let report = match verify(paths, extent)? {
        Ended::Report(report) => report,
        Ended::Interrupted(signal) => return Ok(of_signal(signal)),
    };
    if options.json {
        print_json(&report)?;
    } else {
        print(&report.text())?;
    }
    Ok((!report.holds).into())
}

/// Runs `open`.
///
/// # Errors
/// If standard output cannot be written to.
pub fn open(options: &OpenDevice) -> Result<()> {
    print_json(&device::open(&options.path))
}

/// Runs `call`.
///
/// # Errors
/// If standard output cannot be written to.
pub fn call(call: &SystemCall) -> Result<()> {
    let called = match call {
        SystemCall::RequestKey => keys::ask(),
        SystemCall::JoinGroup { group } => groups::join(*group),
        SystemCall::MakeNamespace => container::make(),
        SystemCall::OwnLoopback { nested } => own_netns::talk(*nested),
        SystemCall::OwnListener { address } => own_listener::talk(*address),
        SystemCall::JoinNamespace { pid } => container::join(*pid),
    };
    print_json(&called)?;
    if let SystemCall::MakeNamespace = call {
        stay();
    }
    Ok(())
}

/// Runs `attempts`.
///
/// # Errors
/// If an attempt cannot be made, or standard output cannot be written to.
pub fn attempt(victims: &str) -> Result<()> {
    closures::attempts::make(&serde_json::from_str(victims)?)
}

/// Runs `service` until the process is ended by a signal.
///
/// # Errors
/// If the services cannot be started.
pub fn serve() -> Result<()> {
    print_json(&service::start()?)?;
    stay()
}

fn stay() -> ! {
    loop {
        thread::park();
    }
}
