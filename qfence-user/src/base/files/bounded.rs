//! Reads a file that others write, up to a limit and without waiting.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

use super::file_type::other_than_regular;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum BoundedError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no regular file.
    #[error("it is {0}")]
    NotRegular(&'static str),
    /// It is longer than the bound.
    #[error("it has more than {0} bytes, which is the limit")]
    TooLong(u64),
}

impl BoundedError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a regular file, or the one that a symbolic link leads to, of at most `most` bytes.
///
/// # Errors
/// If it cannot be read, is longer, or is no regular file: reading a FIFO would wait for a writer.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, BoundedError> {
    // Some devices act when they are opened, so the path is checked first. The opened file may be another one, so it
    // is checked as well.
    check(path.metadata()?.mode())?;
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    check(file.metadata()?.mode())?;
    let mut bytes = Vec::new();
    // The file may grow while it is read, so its size is not used.
    let read = file.take(most + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read <= most) {
        Ok(bytes)
    } else {
        Err(BoundedError::TooLong(most))
    }
}

fn check(mode: u32) -> Result<(), BoundedError> {
    match other_than_regular(mode) {
        Some(kind) => Err(BoundedError::NotRegular(kind)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_bound_through_links_too() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "12345").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read(&link, 5).unwrap(), b"12345");
        let long = read(&link, 4);
        assert!(matches!(long, Err(BoundedError::TooLong(4))), "{long:?}");
        let missing = read(&dir.path().join("none"), 5).unwrap_err();
        assert!(missing.is_missing(), "{missing}");
    }

    #[test]
    fn nothing_else_is_read_or_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        for (path, kind) in [
            (fifo.as_path(), "a FIFO"),
            (dir.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = read(path, 5).unwrap_err();
            assert!(
                matches!(error, BoundedError::NotRegular(found) if found == kind),
                "{error}"
            );
        }
    }
}
