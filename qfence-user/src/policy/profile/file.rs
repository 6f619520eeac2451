//! Reads a profile, but only if no other user can write to it, because it controls what root allows.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::fcntl::OFlag;

use super::{MAX_BYTES, ProfileError};
use crate::base::files::file_type::other_than_regular;

/// Reads the text of a file that belongs to one of `owners`.
pub(super) fn read(path: &Path, owners: &[u32]) -> Result<String, ProfileError> {
    let context = |source| ProfileError::Read {
        path: path.to_owned(),
        source,
    };
    // Some devices act when they are opened, so the path is checked first. The opened file may be another one, so it
    // is checked as well.
    check(path, &path.metadata().map_err(context)?, owners)?;
    let file = open(path).map_err(context)?;
    check(path, &file.metadata().map_err(context)?, owners)?;

    let bytes = read_bounded(file).map_err(context)?;
    let bytes = bytes.ok_or_else(|| ProfileError::TooLarge {
        path: path.to_owned(),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        ProfileError::NotText {
            path: path.to_owned(),
            line: valid.iter().filter(|&&byte| byte == b'\n').count() + 1,
        }
    })
}

/// Opens a file without waiting for a writer if it is a FIFO.
fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
}

/// Reads the whole file; `None` if it is too long. Its size is not used, since it may grow meanwhile.
fn read_bounded(file: File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((u64::try_from(read).is_ok_and(|read| read <= MAX_BYTES)).then_some(bytes))
}

/// Refuses anything but a file, and files that other users own or can write to, as sudo does.
fn check(path: &Path, metadata: &Metadata, owners: &[u32]) -> Result<(), ProfileError> {
    let path = || path.to_owned();
    if let Some(kind) = other_than_regular(metadata.mode()) {
        return Err(ProfileError::NotAFile { path: path(), kind });
    }
    if !owners.contains(&metadata.uid()) {
        let owner = metadata.uid();
        return Err(ProfileError::Owner {
            path: path(),
            owner,
        });
    }
    if let Some(whom) = writers(metadata.mode(), metadata.gid()) {
        return Err(ProfileError::Writable { path: path(), whom });
    }
    Ok(())
}

/// The users other than the owner who can write to a file. Root's group does not count.
fn writers(mode: u32, group: u32) -> Option<&'static str> {
    if mode & 0o002 != 0 {
        Some("everybody")
    } else if mode & 0o020 != 0 && group != 0 {
        Some("its group")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_fifo_that_nobody_writes_to_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        assert!(open(&fifo).is_ok());
    }

    #[test]
    fn only_the_owner_and_roots_group_may_write() {
        for (mode, group, whom) in [
            (0o600, 1000, None),
            (0o644, 1000, None),
            (0o755, 0, None),
            (0o664, 0, None),
            (0o664, 1000, Some("its group")),
            (0o620, 4, Some("its group")),
            (0o666, 0, Some("everybody")),
            (0o602, 1000, Some("everybody")),
        ] {
            assert_eq!(writers(mode, group), whom, "{mode:o} {group}");
        }
    }
}
