//! The commands of `qfence-verify`: `verify`, and the processes that it starts as another user, inside and outside of
//! the fence.
//!
//! No command of `qfence-user` may use this module: the supervisor must not contain probes or scenes.

pub mod probe;
pub mod verify;

use std::process::ExitCode;

use anyhow::Result;

use super::{end, parse};
use crate::{
    base::{paths::Paths, process::helper},
    cli::{Actor, Verifier},
    verify::closures::victims,
};

/// Runs the command line of this process, which is `qfence-verify`.
#[must_use]
pub fn run() -> ExitCode {
    match parse() {
        Ok(options) => end(follow(&options)),
        Err(status) => status,
    }
}

fn follow(options: &Verifier) -> Result<u8> {
    let Some(actor) = &options.actor else {
        return verify::run(options, &Paths::default());
    };
    match actor {
        Actor::Probe(options) => probe::run(options),
        Actor::Open(options) => verify::open(options),
        Actor::Call(call) => verify::call(call),
        Actor::Victim => victims::serve(),
        Actor::Attempts { victims } => verify::attempt(victims),
        Actor::Service => verify::serve(),
        Actor::StatReader { proc } => helper::serve(proc),
    }
    .map(|()| 0)
}
