//! Reads a file below the root directory of another process, and follows no link out of it.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::{bounded::BoundedError, file_type::other_than_regular};

/// A file below another root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its device and inode.
    pub identity: (u64, u64),
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Reads a regular file of at most `most` bytes. In `path`, and in links on the way, `/` and `..` do not lead out of the
/// directory `root` (`RESOLVE_IN_ROOT` of openat2(2), Linux 5.6).
///
/// A file system can be a process that never answers. Where others than root can have mounted one, this must run in a
/// process of its own ([`Question::Resolver`](crate::base::process::helper)).
///
/// # Errors
/// If it cannot be read, is longer, or is no regular file.
pub fn read(root: &Path, path: &Path, most: u64) -> Result<Found, BoundedError> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(root, directory, Mode::empty()).map_err(io::Error::from)?;
    // Opening a device or a FIFO could act or wait, so it is only looked up at first.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path: OwnedFd = openat2(&root, path, how).map_err(io::Error::from)?;
    let place = File::from(path);
    let metadata = place.metadata()?;
    if let Some(kind) = other_than_regular(metadata.mode()) {
        return Err(BoundedError::NotRegular(kind));
    }
    // The same file, whatever has its name now.
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > most) {
        return Err(BoundedError::TooLong(most));
    }
    Ok(Found {
        identity: (metadata.dev(), metadata.ino()),
        bytes,
    })
}

/// The answer of another process that reads the file: the first byte is [`FOUND`], [`MISSING`] or [`FAILED`]. A file that was
/// found has its device and inode in the first line.
pub(crate) fn identified(root: &Path, path: &Path, most: u64) -> Vec<u8> {
    match read(root, path, most) {
        Ok(Found {
            identity: (device, inode),
            bytes,
        }) => [format!("{FOUND}{device} {inode}\n").as_bytes(), &bytes].concat(),
        Err(error) if error.is_missing() => vec![MISSING as u8],
        Err(error) => format!("{FAILED}{error}").into_bytes(),
    }
}

/// The first characters of such an answer.
const FOUND: char = '+';
const MISSING: char = '0';
const FAILED: char = '!';

/// The file in such an answer; `None` if it does not exist.
///
/// # Errors
/// If it could not be read, and if the answer is none.
pub(crate) fn parse(answer: &[u8]) -> io::Result<Option<Found>> {
    let (kind, rest) = answer.split_first().ok_or(io::ErrorKind::UnexpectedEof)?;
    match char::from(*kind) {
        MISSING => Ok(None),
        FOUND => found(rest)
            .map(Some)
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::other(String::from_utf8_lossy(rest).into_owned())),
    }
}

fn found(rest: &[u8]) -> Option<Found> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (device, inode) = str::from_utf8(rest.get(..end)?).ok()?.split_once(' ')?;
    Some(Found {
        identity: (device.parse().ok()?, inode.parse().ok()?),
        bytes: rest.get(end + 1..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("run")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(root.join("run/resolv.conf"), "inside").unwrap();
        let path = Path::new("etc/resolv.conf");
        let read = |most| read(&root, path, most);
        assert!(read(100).unwrap_err().is_missing());
        for (target, content) in [
            ("/run/resolv.conf", Some("inside")),
            ("../../../../run/resolv.conf", Some("inside")),
            ("../../secret", None),
            ("/proc/self/root/etc/hostname", None),
        ] {
            symlink(target, root.join(path)).unwrap();
            let found = read(100).ok().map(|found| found.bytes);
            let expected = content.map(|content| content.as_bytes().to_vec());
            assert_eq!(found, expected, "{target}");
            fs::remove_file(root.join(path)).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_or_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let read = |most| read(dir.path(), Path::new("/file"), most);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        assert!(matches!(read(9), Err(BoundedError::NotRegular("a FIFO"))));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "12345").unwrap();
        assert!(matches!(read(4), Err(BoundedError::TooLong(4))));
        let found = read(5).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(found.identity, (metadata.dev(), metadata.ino()));
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let answer = |name: &str| parse(&identified(dir.path(), Path::new(name), 5));
        assert_eq!(answer("file").unwrap(), None);
        fs::write(dir.path().join("file"), "a\nb").unwrap();
        assert_eq!(answer("file").unwrap().unwrap().bytes, b"a\nb");
        fs::write(dir.path().join("file"), "123456").unwrap();
        let error = answer("file").unwrap_err().to_string();
        assert_eq!(error, "it has more than 5 bytes, which is the limit");
        for text in ["", "+", "+1\n", "+1 x\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
