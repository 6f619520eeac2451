//! Executables and other files, found as a command would find them.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
use serde::{Deserialize, Serialize};

/// The maximum size of a configuration file, in bytes.
const LONGEST: u64 = 1 << 20;

/// The identity of a file, independent of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The device that contains it.
    device: u64,
    /// Its inode.
    inode: u64,
}

impl FileId {
    /// The file at the end of a path; `None` if there is none. Cached attributes are sufficient. A file system that may
    /// not answer is not queried (`fuse_update_get_attr` in fs/fuse/dir.c).
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let file = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
        Some(Self {
            device: makedev(file.stx_dev_major, file.stx_dev_minor),
            inode: file.stx_ino,
        })
    }
}

/// The executable that a word names, by `$PATH` and symbolic links.
#[must_use]
pub fn resolve(word: &OsStr) -> Option<PathBuf> {
    if word.as_encoded_bytes().contains(&b'/') {
        return Path::new(word).canonicalize().ok();
    }
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|directory| directory.join(word));
    files.find(|file| file.is_file())?.canonicalize().ok()
}

/// Reads a file that another process will read again later.
///
/// # Errors
/// If it cannot be read, is too long, or is not a regular file: data read from a pipe or a terminal would be missing
/// later.
pub fn read_again_later(path: &Path) -> io::Result<String> {
    let file = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "it is not a regular file: data that qfence reads from it would be missing for the command",
        ));
    }
    let mut text = Vec::new();
    if file.take(LONGEST + 1).read_to_end(&mut text)? as u64 > LONGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let (program, link) = (dir.path().join("program"), dir.path().join("link"));
        fs::write(&program, "").unwrap();
        symlink(&program, &link).unwrap();
        let program = program.canonicalize().unwrap();
        assert_eq!(resolve(link.as_os_str()), Some(program));
        assert_eq!(resolve(dir.path().join("none").as_os_str()), None);
        let shell = resolve(OsStr::new("sh")).unwrap();
        assert!(shell.is_absolute() && !shell.is_symlink(), "{shell:?}");
        assert_eq!(resolve(OsStr::new("no-such-program-anywhere")), None);
    }

    #[test]
    fn what_can_be_read_once_only_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "[nic]\n").unwrap();
        assert_eq!(read_again_later(&file).unwrap(), "[nic]\n");

        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&pipe, dir.path(), Path::new("/dev/zero")] {
            assert!(read_again_later(path).is_err(), "{}", path.display());
        }
        let missing = read_again_later(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        File::create(&file).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(read_again_later(&file).is_err());
    }
}
