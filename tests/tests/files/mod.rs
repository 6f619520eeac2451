//! The files that root writes: whole or not at all, never through what somebody else has put in the way, and
//! never by a name that leads elsewhere.

mod directories;
mod links;
mod modes;
mod textfiles;

use std::{path::Path, process::Command};

use anyhow::Result;
use tests::{
    fence::qfence,
    run::{Ended, to_end},
};

fn textfile(path: &Path) -> Result<Ended> {
    let mut command = Command::new(qfence()?);
    command.args(["metrics", "--textfile"]).arg(path);
    to_end(command)
}
