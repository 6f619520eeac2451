//! A sink that appends lines to a file, and begins a new one when it is full.

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;

use super::{Sink, formatted};
use crate::{
    base::{
        console::notify,
        files::log::{Opened, PathError, Place, Trusted, open_to_append},
        lines::Lines,
    },
    record::{line::Line, rotation::Rotation, target::Format},
};

pub(super) struct File {
    path: PathBuf,
    file: fs::File,
    /// `None` for a file that cannot be renamed.
    place: Option<Place>,
    /// Whether the path names a file that a process has open, such as /dev/stdout. This process may have closed it since.
    is_of_process: bool,
    rotation: Rotation,
    lines: Lines,
    format: Format,
    trusted: Trusted,
}

impl File {
    pub(super) fn open(
        path: &Path,
        rotation: Rotation,
        format: Format,
        user: Option<Uid>,
    ) -> Result<Self> {
        // The working directory may be another one when the file is reopened.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let trusted = Trusted::from_env(user);
        let waits = || {
            notify(format_args!(
                "waiting for a reader of the log {}",
                path.display()
            ));
        };
        let Opened {
            file,
            place,
            is_of_process,
        } = open_to_append(&path, &trusted, waits)
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        ensure!(
            place.is_some() || !rotation.is_given,
            "the log {} is no regular file, which max and keep are for",
            path.display()
        );
        Ok(Self {
            path,
            place,
            is_of_process,
            rotation,
            // A previous writer may have failed within a line.
            lines: Lines::within(ends_within_a_line(&file).unwrap_or(false)),
            file,
            format,
            trusted,
        })
    }

    /// Begins a new file if this one is too full for `more` bytes.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let (Some(place), Some(max)) = (&self.place, self.rotation.max) else {
            return Ok(());
        };
        // Others may append to the file too, or truncate it.
        let size = self.file.metadata()?.len();
        if size == 0 || size.saturating_add(more) <= max {
            return Ok(());
        }
        match place.begin_anew(&self.file, self.rotation.keep, &self.trusted) {
            Ok(Some(file)) => {
                self.file = file;
                self.lines = Lines::default();
                Ok(())
            }
            // Another fence that shares the file has begun a new one.
            Ok(None) => self.reopen(),
            // The directory was removed, and there may be a new one at the path.
            Err(PathError::Io(error)) if error.kind() == io::ErrorKind::NotFound => self.reopen(),
            Err(error) => Err(error.into()),
        }
    }
}

impl Sink for File {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        // One write call, so that fences that share a file do not mix their lines.
        let text = format!("{}\n", formatted(line, self.format)?);
        self.make_room(text.len() as u64)?;
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
        if self.is_of_process {
            // The path may name another file now: in the background, standard output is /dev/null.
            return Ok(());
        }
        let Opened { file, place, .. } = open_to_append(&self.path, &self.trusted, || {})?;
        // If the new file cannot be read, for instance because it is the same FIFO, the state of the old one applies.
        if let Some(is_within) = ends_within_a_line(&file) {
            self.lines = Lines::within(is_within);
        }
        self.file = file;
        self.place = place;
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

    fn open(path: &Path, rotation: Rotation) -> Result<File> {
        File::open(path, rotation, Format::Text, None)
    }

    #[test]
    fn all_files_together_are_no_larger_than_they_may_be_and_no_line_is_cut() {
        const MAX: u64 = 5_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rotation = Rotation {
            max: Some(MAX),
            keep: 2,
            is_given: true,
        };
        let one = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        // Two fences share the file, and a restart continues it.
        for _ in 0..3 {
            let mut sinks = [
                open(&path, rotation).unwrap(),
                open(&path, rotation).unwrap(),
            ];
            for _ in 0..100 {
                for sink in &mut sinks {
                    sink.write(&one).unwrap();
                }
            }
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            names.push(entry.file_name().into_string().unwrap());
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(text.len() as u64 <= MAX, "{}", text.len());
            assert!(text.lines().all(|line| line == one.to_string()), "{text}");
            let is_full = text.len() as u64 + 2 * one.to_string().len() as u64 > MAX;
            assert!(is_full || entry.file_name() == "log", "{}", text.len());
        }
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
    }

    #[test]
    fn a_file_that_cannot_be_begun_anew_is_an_error_and_grows_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rotation = Rotation {
            max: Some(1_000),
            keep: 1,
            is_given: true,
        };
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        let mut file = open(&path, rotation).unwrap();
        fs::create_dir(dir.path().join("log.1")).unwrap();
        let written = (0..100).filter(|_| file.write(&line).is_ok()).count();
        assert!((1..100).contains(&written), "{written}");
        assert!(fs::metadata(&path).unwrap().len() <= 1_000);
        fs::remove_dir(dir.path().join("log.1")).unwrap();
        file.write(&line).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{line}\n"));
        // A device has no size.
        assert!(open(Path::new("/dev/null"), rotation).is_err());
        assert!(open(Path::new("/dev/null"), Rotation::default()).is_ok());
    }

    #[test]
    fn a_directory_that_was_made_anew_is_found_when_the_file_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let rotation = Rotation {
            max: Some(1_000),
            keep: 1,
            is_given: true,
        };
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        fs::create_dir(&logs).unwrap();
        let mut file = open(&logs.join("log"), rotation).unwrap();
        fs::remove_dir_all(&logs).unwrap();
        let written = (0..100).filter(|_| file.write(&line).is_ok()).count();
        assert!((1..100).contains(&written), "{written}");
        fs::create_dir(&logs).unwrap();
        file.write(&line).unwrap();
        let text = fs::read_to_string(logs.join("log")).unwrap();
        assert_eq!(text, format!("{line}\n"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        let mut file = open(&path, Rotation::default()).unwrap();
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
        let mut file = open(&path, Rotation::default()).unwrap();
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
