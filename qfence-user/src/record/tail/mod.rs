//! Reads the record of a fence from where it was read last, across the files that it is kept in, and notices what of
//! it is gone.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    files::RecordFiles,
    line::{Body, Line},
    stamp,
};
use crate::base::version::OtherVersion;

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// More than a line has, in bytes. What is longer is none.
const LONGEST: usize = 64 * 1024;

/// How often the files are opened anew if another one is begun meanwhile. It takes seconds to fill one.
const TRIES: usize = 8;

/// Something of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line.
    Line(Box<Line>),
    /// Lines that were there, and are not any more.
    Gap(Gap),
}

/// What is missing between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many lines.
    pub lines: u64,
    /// How many attempts they told of.
    pub attempts: u64,
}

/// How far a record was read.
#[derive(Debug)]
pub struct Tail {
    files: RecordFiles,
    /// The file that is read, wherever it is by now.
    file: Option<File>,
    /// What was read of a line, up to its end.
    begun: Vec<u8>,
    /// Whether that is too long to be one.
    is_overlong: bool,
    /// The number of the last line, and how many attempts all up to it tell of.
    last: Option<(u64, u64)>,
    /// That a line is of another version, if one is: what is read says so, once it is read.
    other: Option<OtherVersion>,
}

impl Tail {
    /// Begins with the first line there is.
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

    /// What has come since the last call, oldest first. What is half written comes when it is whole; what is no line is
    /// left out.
    ///
    /// # Errors
    /// If a file cannot be read, or a line is of [another version](OtherVersion).
    pub fn read(&mut self) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let current = open(self.files.path())?;
        let (was, is) = (inode(self.file.as_ref())?, inode(current.as_ref())?);
        if was.is_some() && (is == was || is.is_none()) {
            // Between the renaming of one file and the making of the next there is none.
            self.read_on(&mut pieces)?;
            return Ok(pieces);
        }
        // What was read up to now gets no more lines, but may have some that were not read yet.
        self.read_on(&mut pieces)?;
        for file in self.files()? {
            if inode(Some(&file))? != was {
                self.begun.clear();
                self.is_overlong = false;
                self.file = Some(file);
                self.read_on(&mut pieces)?;
            }
        }
        Ok(pieces)
    }

    /// The files there are, the older first.
    fn files(&self) -> Result<VecDeque<File>> {
        let mut files = VecDeque::new();
        for _ in 0..TRIES {
            let current = open(self.files.path())?;
            let before = open(self.files.old_path())?;
            let again = open(self.files.path())?;
            let is_settled = inode(current.as_ref())? == inode(again.as_ref())?;
            files = before.into_iter().chain(current).collect();
            if is_settled {
                break;
            }
        }
        Ok(files)
    }

    /// Reads to the end of the file.
    fn read_on(&mut self, pieces: &mut Vec<Piece>) -> Result<()> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match file.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.with_context(|| self.cannot_read())?,
            };
            self.take(&chunk[..count], pieces);
            if count < chunk.len() {
                break;
            }
        }
        // A line that has no end may be cut off again, by a writer that found no room for the rest (`files.rs`).
        let begun = i64::try_from(std::mem::take(&mut self.begun).len())?;
        if begun > 0 {
            let back = file.seek(SeekFrom::Current(-begun));
            back.with_context(|| self.cannot_read())?;
        }
        self.file = Some(file);
        self.other.take().map_or(Ok(()), |other| Err(other.into()))
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
        let line = match stamp::read(&self.begun) {
            stamp::Read::Line(line) => line,
            stamp::Read::Other(other) => {
                self.other = Some(other);
                return;
            }
            stamp::Read::Nothing => return,
        };
        if let Some((seq, total)) = self.last {
            // A file that was begun anew meanwhile may be read twice.
            if line.seq <= seq {
                return;
            }
            let lines = line.seq - seq - 1;
            let before = line.total.saturating_sub(line.count);
            let attempts = before.saturating_sub(total);
            // A line that says how many attempts are missing stands for the lines that they were on.
            if lines > 0 && (attempts > 0 || line.body != Body::Dropped) {
                pieces.push(Piece::Gap(Gap { lines, attempts }));
            }
        }
        self.last = Some((line.seq, line.total));
        pieces.push(Piece::Line(line));
    }

    fn cannot_read(&self) -> String {
        format!("cannot read {}", self.files.path().display())
    }
}

/// `None` for what is not there.
fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened
            .map(Some)
            .with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The inode of a file, which is no other's as long as the file is open.
fn inode(file: Option<&File>) -> Result<Option<u64>> {
    let metadata = file.map(File::metadata).transpose();
    let metadata = metadata.context("cannot look at the record")?;
    Ok(metadata.map(|metadata| metadata.ino()))
}

#[cfg(test)]
mod tests;
