//! Reads the record of a fence from the last position, across its files, and detects missing lines.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::{
    error::RecordError,
    files::RecordFiles,
    line::{Body, Line},
    stamp,
};
use crate::base::version::OtherVersion;

/// The size of one read, in bytes.
const CHUNK: usize = 64 * 1024;

/// The maximum length of a line, in bytes. Longer lines are skipped.
const LONGEST: usize = 64 * 1024;

/// How often opening the files is repeated if a new file is started meanwhile. Filling a file takes seconds.
const TRIES: usize = 8;

/// A piece of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line.
    Line(Box<Line>),
    /// Lines that existed and were overwritten.
    Gap(Gap),
}

/// The lines that are missing between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number of missing lines.
    pub lines: u64,
    /// The number of attempts that they reported.
    pub attempts: u64,
}

/// A position in a record.
#[derive(Debug)]
pub struct Tail {
    files: RecordFiles,
    /// The file that is read, also after it was renamed or removed.
    file: Option<File>,
    /// The beginning of a line whose end was not read yet.
    begun: Vec<u8>,
    /// Whether this line is too long.
    is_overlong: bool,
    /// The number of the last line, and its total of attempts.
    last: Option<(u64, u64)>,
    /// Set if a line belongs to another version. Nothing after it in its file is read.
    other: Option<OtherVersion>,
}

impl Tail {
    /// Starts at the first available line.
    #[must_use]
    pub fn new(files: RecordFiles) -> Self {
        Self {
            files,
            file: None,
            begun: Vec::new(),
            is_overlong: false,
            last: None,
            other: None,
        }
    }

    /// The pieces since the last call, oldest first, and whether there is an error after them. An incomplete line is
    /// returned once it is complete. Invalid lines are skipped. The error is never [`RecordError::Write`].
    pub fn read(&mut self) -> (Vec<Piece>, Result<(), RecordError>) {
        let mut pieces = Vec::new();
        let read = self.read_files(&mut pieces);
        (pieces, read)
    }

    /// Like [`Tail::read`], but reads no other file than the one that is open: the files at the paths may belong to another
    /// fence now.
    pub fn read_rest(&mut self) -> (Vec<Piece>, Result<(), RecordError>) {
        let mut pieces = Vec::new();
        let read = self.read_on(&mut pieces);
        (pieces, read)
    }

    fn read_files(&mut self, pieces: &mut Vec<Piece>) -> Result<(), RecordError> {
        let current = open(self.files.path())?;
        let (was, is) = (
            self.inode(self.file.as_ref())?,
            self.inode(current.as_ref())?,
        );
        if was.is_some() && (is == was || is.is_none()) {
            // There is no current file between the renaming of one and the creation of the next.
            return self.read_on(pieces);
        }
        // The old file gets no more lines, but may have unread ones.
        self.read_on(pieces)?;
        for file in self.files()? {
            if self.inode(Some(&file))? != was {
                self.begun.clear();
                self.is_overlong = false;
                self.file = Some(file);
                self.read_on(pieces)?;
            }
        }
        Ok(())
    }

    /// The available files, the older one first.
    fn files(&self) -> Result<VecDeque<File>, RecordError> {
        let mut files = VecDeque::new();
        for _ in 0..TRIES {
            let current = open(self.files.path())?;
            let before = open(self.files.old_path())?;
            let again = open(self.files.path())?;
            let is_settled = self.inode(current.as_ref())? == self.inode(again.as_ref())?;
            files = before.into_iter().chain(current).collect();
            if is_settled {
                break;
            }
        }
        Ok(files)
    }

    /// Reads to the end of the open file.
    fn read_on(&mut self, pieces: &mut Vec<Piece>) -> Result<(), RecordError> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match file.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|error| self.cannot_read(error))?,
            };
            self.take(&chunk[..count], pieces);
            if count < chunk.len() {
                break;
            }
        }
        // An incomplete line is read again next time: a writer that found no room for the rest may cut it off
        // (`files/mod.rs`).
        let begun = std::mem::take(&mut self.begun).len() as u64;
        if begun > 0 {
            let back = file
                .stream_position()
                .and_then(|position| file.seek(SeekFrom::Start(position.saturating_sub(begun))));
            back.map_err(|error| self.cannot_read(error))?;
        }
        self.file = Some(file);
        self.other.take().map_or(Ok(()), |source| {
            Err(RecordError::OtherVersion {
                path: self.files.path().to_owned(),
                source,
            })
        })
    }

    fn take(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len() + part.len() > LONGEST {
                self.begun.clear();
                self.is_overlong = true;
            }
            if !self.is_overlong {
                self.begun.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.take_line(pieces);
                self.begun.clear();
                self.is_overlong = false;
            }
        }
    }

    fn take_line(&mut self, pieces: &mut Vec<Piece>) {
        if self.other.is_some() {
            return;
        }
        let line = match stamp::read(&self.begun) {
            stamp::Read::Line(line) => line,
            stamp::Read::Other(other) => {
                self.other = Some(other);
                return;
            }
            stamp::Read::Nothing => return,
        };
        if let Some((seq, total)) = self.last {
            // If a new file was started meanwhile, a file may be read twice.
            if line.seq <= seq {
                return;
            }
            // A `dropped` line has the number of the last line that it stands for.
            let reported = match line.body {
                Body::Dropped { lines } => lines,
                _ => 1,
            };
            let lines = (line.seq - seq).saturating_sub(reported);
            let before = line.total.saturating_sub(line.count);
            let attempts = before.saturating_sub(total);
            if lines > 0 {
                pieces.push(Piece::Gap(Gap { lines, attempts }));
            }
        }
        self.last = Some((line.seq, line.total));
        pieces.push(Piece::Line(line));
    }

    /// The inode of a file. It is unique while the file is open.
    fn inode(&self, file: Option<&File>) -> Result<Option<u64>, RecordError> {
        let metadata = file.map(File::metadata).transpose();
        let metadata = metadata.map_err(|error| self.cannot_read(error))?;
        Ok(metadata.map(|metadata| metadata.ino()))
    }

    fn cannot_read(&self, source: io::Error) -> RecordError {
        RecordError::Read {
            path: self.files.path().to_owned(),
            source,
        }
    }
}

/// Opens a file; `None` if it does not exist.
fn open(path: &Path) -> Result<Option<File>, RecordError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RecordError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests;
