//! Sinks: each writes lines to one destination.

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

/// A destination for lines. It has its own thread, so it may block.
pub trait Sink: Send {
    /// Writes a line.
    ///
    /// # Errors
    /// If the line cannot be written. Later lines may succeed.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Opens the file again by its path.
    ///
    /// # Errors
    /// If it cannot be opened. The sink then continues with the file that is open.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a target. `format` applies if the target has no format of its own. `user` is the user of the command, `None`
/// for root: that user must not be able to read lines away from a FIFO. Returns `None` for the target `none`.
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
        SinkKind::File(path, rotation) => {
            Some(Box::new(file::File::open(path, *rotation, format, user)?))
        }
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
