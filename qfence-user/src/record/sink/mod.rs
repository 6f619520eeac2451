//! Writes lines to one place.

mod fields;
mod file;
mod journald;
mod syslog;

use std::io;

use anyhow::Result;
use nix::unistd::Uid;

use super::{
    line::Line,
    target::{Format, LogTarget, SinkKind},
};
use crate::base::console::write_line;

/// A place that lines are written to. It may block: it has a thread of its own.
pub trait Sink: Send {
    /// Writes a line.
    ///
    /// # Errors
    /// If it cannot be written; the next may be.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Begins anew with what is there under the same name now.
    ///
    /// # Errors
    /// If that cannot be opened; what was written to before is then still written to.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a target; lines are written in `format` if it does not say how. `user` is whom the command runs as, `None` for
/// root: it must not be able to take lines away. `None` for a target that goes nowhere.
///
/// # Errors
/// If it cannot be opened.
pub fn open(
    target: &LogTarget,
    format: Format,
    user: Option<Uid>,
) -> Result<Option<Box<dyn Sink>>> {
    let format = target.format.unwrap_or(format);
    Ok(match &target.kind {
        SinkKind::None => None,
        SinkKind::Stderr => Some(Box::new(Stderr(format))),
        SinkKind::File(path) => Some(Box::new(file::File::open(path, format, user)?)),
        SinkKind::Journald => Some(Box::new(journald::Journald::open()?)),
        SinkKind::Syslog(socket) => Some(Box::new(syslog::Syslog::open(socket)?)),
    })
}

/// Standard error.
struct Stderr(Format);

impl Sink for Stderr {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        write_line(&formatted(line, self.0)?)
    }
}

fn formatted(line: &Line, format: Format) -> io::Result<String> {
    match format {
        Format::Text => Ok(line.to_string()),
        Format::Json => Ok(line.to_json()?),
    }
}
