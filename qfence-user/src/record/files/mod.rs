//! The files of a fence's record: JSON lines in a current and a previous file under /run/qfence. A new writer continues
//! from the last line.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    error::RecordError,
    line::Line,
    stamp,
    tail::{Piece, Tail},
};
use crate::base::{
    files::directory::{Directory, Others},
    version::OtherVersion,
};

/// The suffix of the current file.
const SUFFIX: &str = ".log";
/// The suffix of the previous file.
const OLD_SUFFIX: &str = ".log.1";

/// The size at which a new file is started, in bytes. /run is in memory.
const FULL: u64 = 256 * 1024;

/// How much of a file's end is searched for its last line, in bytes. A line is shorter.
const LONGEST: u64 = 64 * 1024;

/// The paths of a fence's record.
#[derive(Clone, Debug)]
pub struct RecordFiles {
    path: PathBuf,
    old: PathBuf,
}

impl RecordFiles {
    /// The record of the fence `name` in the directory `run`.
    #[must_use]
    pub fn new(run: &Path, name: &str) -> Self {
        Self {
            path: run.join(format!("{name}{SUFFIX}")),
            old: run.join(format!("{name}{OLD_SUFFIX}")),
        }
    }

    /// The current file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The previous file.
    #[must_use]
    pub fn old_path(&self) -> &Path {
        &self.old
    }

    /// All lines, oldest first. Incomplete and invalid lines are skipped.
    ///
    /// # Errors
    /// As [`Tail::read`], also if there are lines before the error.
    pub fn lines(&self) -> Result<Vec<Line>, RecordError> {
        let (pieces, read) = Tail::new(self.clone()).read();
        read?;
        let line = |piece| match piece {
            Piece::Line(line) => Some(*line),
            Piece::Gap(_) => None,
        };
        Ok(pieces.into_iter().filter_map(line).collect())
    }

    /// Removes the record.
    ///
    /// # Errors
    /// The error of unlink(2). A record that is already gone is not an error.
    pub fn remove(&self) -> Result<()> {
        let Some(directory) = Directory::trusted(self.run(), Others::Read)? else {
            return Ok(());
        };
        for path in [&self.path, &self.old] {
            directory
                .remove(name(path))
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Opens the current file to append, and creates it if needed.
    fn append(&self) -> Result<File> {
        let directory = Directory::private(self.run(), Others::Read)?;
        Ok(directory.append(name(&self.path))?)
    }

    /// Renames the current file to the previous one, if there is one: an earlier call may have renamed it without being able
    /// to create the next, or somebody has removed it.
    fn turn_over(&self) -> Result<()> {
        let directory = Directory::private(self.run(), Others::Read)?;
        match directory.rename(name(&self.path), name(&self.old)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => Ok(renamed?),
        }
    }

    fn cannot_write(&self, error: impl Into<anyhow::Error>) -> RecordError {
        RecordError::Write {
            path: self.path.clone(),
            source: error.into(),
        }
    }

    fn of_another(&self, version: OtherVersion) -> RecordError {
        RecordError::OtherVersion {
            path: self.path.clone(),
            source: version,
        }
    }

    fn run(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Writes the record of one fence. Only the reader of its attempts writes.
#[derive(Debug)]
pub struct RecordAppender {
    files: RecordFiles,
    file: File,
    /// The length of all complete lines, in bytes.
    length: u64,
    /// Whether the file contains only complete lines.
    is_whole: bool,
}

impl RecordAppender {
    /// Opens a record to continue it; also returns its last line, if there is one.
    ///
    /// # Errors
    /// [`RecordError`]; never [`RecordError::Read`].
    pub fn open(files: RecordFiles) -> Result<(Self, Option<Line>), RecordError> {
        let cannot = |error: io::Error| files.cannot_write(error);
        let mut file = files.append().map_err(|error| files.cannot_write(error))?;
        let length = file.seek(SeekFrom::End(0)).map_err(cannot)?;
        let end = read_end(&mut file, length).map_err(cannot)?;
        let mut last = last_line(&end).map_err(|other| files.of_another(other))?;
        if last.is_none() {
            let end = File::open(&files.old).ok().and_then(|mut old| {
                let length = old.seek(SeekFrom::End(0)).ok()?;
                read_end(&mut old, length).ok()
            });
            last = last_line(&end.unwrap_or_default()).map_err(|other| files.of_another(other))?;
        }
        let mut appender = Self {
            files,
            file,
            // A previous writer may have ended within a line. Cutting that line off works on a full disk too.
            length: length - half_a_line(&end),
            is_whole: false,
        };
        appender.cut()?;
        Ok((appender, last))
    }

    /// Appends lines, completely or not at all.
    ///
    /// # Errors
    /// [`RecordError::Write`].
    pub fn write(&mut self, lines: &str) -> Result<(), RecordError> {
        self.cut()?;
        if self.length >= FULL {
            let turned = self.files.turn_over().and_then(|()| self.files.append());
            self.file = turned.map_err(|error| self.files.cannot_write(error))?;
            self.length = 0;
        }
        self.is_whole = false;
        if let Err(error) = self.file.write_all(lines.as_bytes()) {
            // If this fails, the next write tries again.
            let _ = self.cut();
            return Err(self.files.cannot_write(error));
        }
        self.is_whole = true;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Cuts off an incomplete line. There is only one writer, so nothing of another writer follows it.
    fn cut(&mut self) -> Result<(), RecordError> {
        if !self.is_whole {
            let cut = self.file.set_len(self.length);
            cut.map_err(|error| self.files.cannot_write(error))?;
            self.is_whole = true;
        }
        Ok(())
    }
}

/// The length of the incomplete last line, in bytes.
fn half_a_line(end: &[u8]) -> u64 {
    let lines = end.iter().rposition(|byte| *byte == b'\n');
    (end.len() - lines.map_or(0, |last| last + 1)) as u64
}

fn read_end(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}

fn last_line(end: &[u8]) -> Result<Option<Line>, OtherVersion> {
    for line in end.split(|byte| *byte == b'\n').rev() {
        match stamp::read(line) {
            stamp::Read::Line(line) => return Ok(Some(*line)),
            stamp::Read::Other(other) => return Err(other),
            stamp::Read::Nothing => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(super) mod tests;
