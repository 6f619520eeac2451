//! `doctor`: checks whether this host can fence, and shows how to repair problems.

use std::io;

use anyhow::Result;
use terminal_size::{Width, terminal_size_of};

use super::{print, print_json};
use crate::{
    base::paths::Paths,
    cli::Doctor,
    doctor::{examine, finding::State, table::table},
};

/// The width of the table where there is no terminal to ask.
const WIDTH: u16 = 100;

/// Runs `doctor`; returns the exit status.
///
/// # Errors
/// If the host cannot be examined, or standard output cannot be written to.
pub fn run(options: &Doctor, paths: &Paths) -> Result<u8> {
    let findings = examine(paths)?;
    if options.json {
        print_json(&findings)?;
    } else {
        let width = terminal_size_of(io::stdout()).map_or(WIDTH, |(Width(columns), _)| columns);
        print(&table(&findings, width))?;
    }
    let missing = findings
        .iter()
        .any(|finding| finding.state == State::Missing);
    Ok(missing.into())
}
