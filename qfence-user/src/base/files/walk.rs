//! Walks a path name by name, and follows no link that others than root can have made.
//!
//! A user who can write to a directory of the path can put a symbolic link there that leads to root's files. The
//! kernel's protection against that (`may_follow_link` and `may_create_in_sticky` in fs/namei.c:
//! fs.protected_symlinks, fs.protected_regular, fs.protected_hardlinks) covers only sticky directories, and may be
//! off. The user who called sudo counts as another user: the command usually runs as that user, so a process in the
//! fence can have made the link.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, fstat, fstatat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

use super::file_type::other_than_regular;

/// The bits of a mode that let others than the owner write.
const FOR_OTHERS: u32 = 0o022;

/// The most links on a path, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A link that is not root's.
    #[error(
        "is a symbolic link that others than root can have made: it is not followed. Give the path that it leads to"
    )]
    Link,
    /// A file of another user.
    #[error(
        "is another user's, in a directory that everybody can write to. Remove it, or give another path"
    )]
    OtherUser,
    /// A file with several names.
    #[error(
        "is a file with more than one name, in a directory that others can write to: it may be another file of \
         root's. Give another path"
    )]
    SecondName,
    /// No regular file, where a log would be moved to.
    #[error(
        "is no regular file, and has the name of an earlier log: remove it, or give another path"
    )]
    NoLog,
    /// A FIFO that others than its owner can read.
    #[error(
        "is a FIFO that others than its owner may read: lines that they read reach no log. Make it with \
         `mkfifo -m 600`"
    )]
    ReadableFifo,
    /// A FIFO that the command can read.
    #[error(
        "is a FIFO of the user that the command runs as, which could read lines from it. Give a FIFO of root's, or \
         run the command as another user (--user)"
    )]
    CommandsFifo,
}

/// Why a file or directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A file on the way is not used.
    #[error("{} {why}", path.display())]
    Refused {
        /// Its path.
        path: PathBuf,
        /// Why.
        why: Refusal,
    },
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for PathError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<PathError> for io::Error {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Io(error) => error,
            refused @ PathError::Refused { .. } => Self::other(refused),
        }
    }
}

/// A walk along a path.
pub(super) struct Walk {
    /// The user whose links are followed.
    root: u32,
    /// The current directory, as a descriptor and as a path for messages.
    directory: OwnedFd,
    place: PathBuf,
    /// The names that are left, in reverse order.
    rest: Vec<OsString>,
    links: usize,
}

impl Walk {
    /// Starts a walk along `path`. The links of the user `root` are followed.
    ///
    /// # Errors
    /// If the root directory or the working directory cannot be opened.
    pub(super) fn along(path: &Path, root: u32) -> io::Result<Self> {
        let mut walk = Self {
            root,
            directory: top()?,
            place: "/".into(),
            rest: Vec::new(),
            links: 0,
        };
        walk.push(&std::path::absolute(path)?);
        Ok(walk)
    }

    /// Takes the next name.
    pub(super) fn next(&mut self) -> Option<OsString> {
        self.rest.pop()
    }

    /// Puts a name back that was taken.
    pub(super) fn put_back(&mut self, name: OsString) {
        self.rest.push(name);
    }

    /// Whether no name is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The path of the current directory, for messages.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// The current directory.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether the current directory is in /proc, where links are the kernel's own. /dev/stderr leads through two of
    /// them.
    pub(super) fn is_in_proc(&self) -> io::Result<bool> {
        Ok(fstatfs(&self.directory)?.filesystem_type() == PROC_SUPER_MAGIC)
    }

    /// Enters the directory of this name, or follows the link of this name.
    ///
    /// # Errors
    /// Errors of open, and if the link is not followed.
    pub(super) fn pass(&mut self, name: &OsStr) -> Result<(), PathError> {
        if self.is_in_proc()? {
            return self.enter(name, OFlag::empty());
        }
        let found = fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if is_link(&found) {
            return self.follow(name, &found);
        }
        self.enter(name, OFlag::O_NOFOLLOW)
    }

    /// Follows a link: its target comes next.
    ///
    /// # Errors
    /// If others than root can have made it, or there were too many links.
    pub(super) fn follow(&mut self, name: &OsStr, link: &FileStat) -> Result<(), PathError> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let directory = fstat(&self.directory)?;
        let made_by_root = [link.st_uid, directory.st_uid] == [self.root; 2];
        // A user who can write to the directory can give root's link a second name there; its owner is still root.
        let is_there_for_root = link.st_nlink == 1 || is_kept(&directory, self.root);
        if !(made_by_root && is_there_for_root) {
            return Err(self.refused(name, Refusal::Link));
        }
        let target = PathBuf::from(readlinkat(&self.directory, name)?);
        if target.is_absolute() {
            self.directory = top()?;
            self.place = "/".into();
        }
        self.push(&target);
        Ok(())
    }

    /// The error for a file of the current directory that is not used.
    pub(super) fn refused(&self, name: &OsStr, why: Refusal) -> PathError {
        PathError::Refused {
            path: self.place.join(name),
            why,
        }
    }

    /// Puts the names of a path in front of those that are left.
    fn push(&mut self, path: &Path) {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        let names: Vec<_> = names.collect();
        self.rest.extend(names.into_iter().rev());
    }

    fn enter(&mut self, name: &OsStr, how: OFlag) -> Result<(), PathError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | how;
        self.directory = openat(&self.directory, name, flags, Mode::empty())?;
        self.place.push(name);
        Ok(())
    }
}

/// Opens the directory at `path`. The links of the user `root` are followed.
///
/// # Errors
/// Errors of open, and if another user's link is on the path.
pub(super) fn open_directory(path: &Path, root: u32) -> Result<OwnedFd, PathError> {
    let mut walk = Walk::along(path, root)?;
    while let Some(name) = walk.next() {
        walk.pass(&name)?;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(walk.directory(), ".", flags, Mode::empty())?)
}

/// Whether a file is a symbolic link.
pub(super) fn is_link(found: &FileStat) -> bool {
    other_than_regular(found.st_mode) == Some("a symbolic link")
}

/// Whether only the user `root` can have added files to a directory.
pub(super) fn is_kept(directory: &FileStat, root: u32) -> bool {
    directory.st_uid == root && directory.st_mode & FOR_OTHERS == 0
}

fn top() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open("/", flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_directory_is_opened_behind_own_links_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (place, link) = (dir.path().join("place"), dir.path().join("link"));
        fs::create_dir(&place).unwrap();
        symlink("place", &link).unwrap();
        symlink("round", dir.path().join("round")).unwrap();
        let own = geteuid().as_raw();
        let inode =
            |path: &Path, root| Ok::<_, PathError>(fstat(open_directory(path, root)?)?.st_ino);
        let expected = inode(&place, own).unwrap();
        for path in [&link, &link.join("../link/."), &place.join("../place")] {
            assert_eq!(inode(path, own).unwrap(), expected, "{}", path.display());
        }
        assert_eq!(inode(&place, own + 1).unwrap(), expected);
        let refused = inode(&link, own + 1);
        let why = Refusal::Link;
        assert!(
            matches!(&refused, Err(PathError::Refused { why: found, .. }) if *found == why),
            "{refused:?}"
        );
        let round = inode(&dir.path().join("round"), own);
        assert!(
            matches!(&round, Err(PathError::Io(error)) if error.raw_os_error() == Some(Errno::ELOOP as i32)),
            "{round:?}"
        );
        assert!(inode(&place.join("none"), own).is_err());
    }
}
