//! Reads a file that others write, up to a bound and without waiting.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

use super::file_type::other_than_regular;

/// The bytes of a regular file, or of the one that a symbolic link leads to: at most `most`.
///
/// # Errors
/// If it cannot be read, is longer, or is no regular file: to read a FIFO is to wait for who writes to it.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Some devices act when they are opened, so look first; and again at what was opened, which may be
    // another file.
    check(path.metadata()?.mode())?;
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    check(file.metadata()?.mode())?;
    let mut bytes = Vec::new();
    // It may grow while it is read, so its size says nothing.
    let read = file.take(most + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read <= most) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!(
            "it has more than {most} bytes, which is the limit"
        )))
    }
}

fn check(mode: u32) -> io::Result<()> {
    match other_than_regular(mode) {
        Some(kind) => Err(io::Error::other(format!("it is {kind}"))),
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
        let error = read(&link, 4).unwrap_err().to_string();
        assert!(error.contains("more than 4 bytes"), "{error}");
        let missing = read(&dir.path().join("none"), 5).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
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
            let error = read(path, 5).unwrap_err().to_string();
            assert_eq!(error, format!("it is {kind}"));
        }
    }
}
