//! A sink that appends lines to a file.

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::{Sink, formatted};
use crate::{
    base::{
        console::notify,
        files::log::{Trusted, open_to_append},
        lines::Lines,
    },
    record::{line::Line, target::Format},
};

pub(super) struct File {
    path: PathBuf,
    file: fs::File,
    lines: Lines,
    format: Format,
    trusted: Trusted,
}

impl File {
    pub(super) fn open(path: &Path, format: Format, user: Option<Uid>) -> Result<Self> {
        // The working directory may be another one when the file is reopened.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let trusted = Trusted::from_env(user);
        let waits = || {
            notify(format_args!(
                "waiting for a reader of the log {}",
                path.display()
            ));
        };
        let file = open_to_append(&path, &trusted, waits)
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        Ok(Self {
            path,
            // A previous writer may have failed within a line.
            lines: Lines::within(ends_within_a_line(&file).unwrap_or(false)),
            file,
            format,
            trusted,
        })
    }
}

impl Sink for File {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        // One write call, so that fences that share a file do not mix their lines.
        let text = format!("{}\n", formatted(line, self.format)?);
        let written = self.lines.write(&mut self.file, &text);
        if written.is_err()
            && let Some(is_within) = ends_within_a_line(&self.file)
        {
            // Another fence that shares the file may also have failed within a line.
            self.lines = Lines::within(is_within);
        }
        written
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = open_to_append(&self.path, &self.trusted, || {})?;
        // If the new file cannot be read, for instance because it is the same FIFO, the state of the old one applies.
        if let Some(is_within) = ends_within_a_line(&file) {
            self.lines = Lines::within(is_within);
        }
        self.file = file;
        Ok(())
    }
}

/// Whether the last line of a regular file is incomplete. `None` if the file is not regular or cannot be read.
fn ends_within_a_line(file: &fs::File) -> Option<bool> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    let Some(last) = metadata.len().checked_sub(1) else {
        return Some(false);
    };
    // `file` is only open for appending.
    let readable = fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let mut byte = [0];
    (readable.read_at(&mut byte, last).ok()? == 1).then_some(byte != *b"\n")
}

#[cfg(test)]
mod tests {
    use qfence_common::{Hook, address::from_v4};

    use super::*;
    use crate::record::line::tests::line;

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        let mut file = File::open(&path, Format::Text, None).unwrap();
        file.write(&line).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write(&line).unwrap();
        file.reopen().unwrap();
        file.write(&line).unwrap();
        assert_eq!(
            fs::read_to_string(moved).unwrap(),
            format!("{line}\n{line}\n")
        );
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn half_a_line_that_was_there_before_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        fs::write(&path, "half").unwrap();
        let mut file = File::open(&path, Format::Text, None).unwrap();
        file.write(&line).unwrap();
        file.write(&line).unwrap();
        let whole = format!("half\n{line}\n{line}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        fs::write(&path, "half again").unwrap();
        file.reopen().unwrap();
        file.write(&line).unwrap();
        let whole = format!("half again\n{line}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }
}
