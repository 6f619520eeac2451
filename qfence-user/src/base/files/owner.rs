//! Checks that a directory is root's, and the permissions of other users.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{FileStat, lstat},
    unistd::Uid,
};

use super::{file_type::other_than_regular, walk::PathError};

/// Write permission for others than the owner.
const WRITABLE: u32 = 0o022;

/// The bit of a directory in which users can remove only their own files.
const STICKY: u32 = 0o1000;

/// The permissions that users other than the owner may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They may read it, but not write to it.
    Read,
    /// They may write to it if it is sticky, so that they cannot remove root's files.
    AddToSticky,
    /// They may not even open it: a user who can open a directory can lock it.
    Nothing,
}

/// Why a directory is not used, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The path does not end in the name of a file.
    #[error("{} is no path of a file", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The directory of a file cannot be opened.
    #[error("cannot open the directory {}", path.display())]
    Parent {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: PathError,
    },
    /// It does not exist.
    #[error("there is no {}", path.display())]
    Missing {
        /// Its path.
        path: PathBuf,
    },
    /// Something else has its path.
    #[error("{} is {kind}, and must be a directory of root's: look at who made it, and remove it", path.display())]
    NoDirectory {
        /// Its path.
        path: PathBuf,
        /// The type of the file there.
        kind: &'static str,
    },
    /// It is another user's.
    #[error("{} belongs to the user {owner}, and must be root's: look at what is in it, and remove it", path.display())]
    OtherUser {
        /// Its path.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Others have more permissions than [`Others`] allows.
    #[error(
        "{} can be {permission} by others than root (mode {mode:04o}): look at what is in it, and make it root's alone \
         with `chmod go= {}`",
        path.display(),
        path.display()
    )]
    Open {
        /// Its path.
        path: PathBuf,
        /// The permission that others have, as a participle.
        permission: &'static str,
        /// Its permissions.
        mode: u32,
    },
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    System {
        /// The operation, as a verb.
        operation: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DirectoryError {
    pub(super) fn system(
        operation: &'static str,
        path: &Path,
        error: impl Into<io::Error>,
    ) -> Self {
        Self::System {
            operation,
            path: path.to_owned(),
            source: error.into(),
        }
    }
}

/// The error for a path that leads to something else than a directory.
pub(super) fn no_directory(path: &Path) -> DirectoryError {
    let kind = lstat(path)
        .ok()
        .and_then(|found| other_than_regular(found.st_mode));
    DirectoryError::NoDirectory {
        path: path.to_owned(),
        kind: kind.unwrap_or("a file"),
    }
}

/// Checks that a directory belongs to a user.
pub(super) fn check_owner(
    path: &Path,
    found: &FileStat,
    expected: Uid,
) -> Result<(), DirectoryError> {
    if found.st_uid == expected.as_raw() {
        return Ok(());
    }
    Err(DirectoryError::OtherUser {
        path: path.to_owned(),
        owner: found.st_uid,
    })
}

/// Checks the permissions of other users.
pub(super) fn check_others(path: &Path, mode: u32, others: Others) -> Result<(), DirectoryError> {
    let (wrong, permission) = match others {
        Others::Read => (mode & WRITABLE, "written to"),
        Others::AddToSticky if mode & STICKY != 0 => return Ok(()),
        Others::AddToSticky => (mode & WRITABLE, "written to, and is not sticky,"),
        Others::Nothing => (mode & 0o077, "opened"),
    };
    if wrong == 0 {
        return Ok(());
    }
    Err(DirectoryError::Open {
        path: path.to_owned(),
        permission,
        mode: mode & 0o7777,
    })
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn somebody_elses_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let found = lstat(dir.path()).unwrap();
        assert!(check_owner(dir.path(), &found, geteuid()).is_ok());
        let other = Uid::from_raw(geteuid().as_raw() + 1);
        let error = check_owner(dir.path(), &found, other).unwrap_err();
        let own = geteuid().as_raw();
        assert!(
            matches!(error, DirectoryError::OtherUser { owner, .. } if owner == own),
            "{error}"
        );
    }
}
