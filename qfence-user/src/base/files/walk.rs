//! Goes along a path name by name, and follows no link that others than root can have made.
//!
//! Whoever can write to a directory on the way can put a symbolic link there that leads to a file or a directory of root's. The
//! kernel's settings against that (`may_follow_link` and `may_create_in_sticky` in fs/namei.c: fs.protected_symlinks,
//! fs.protected_regular, fs.protected_hardlinks) are about sticky directories alone, and may be off. The user who called
//! sudo is others, too: the command runs as who that is, so what is theirs a process in the fence can have made.

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

/// The bits of a mode by which others than the owner may write.
const FOR_OTHERS: u32 = 0o022;

/// How many links may follow one another, as for the kernel (`MAXSYMLINKS`).
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

/// The way along a path.
pub(super) struct Walk {
    /// Whose links are followed.
    root: u32,
    /// Where it has come to, by descriptor and to be read.
    directory: OwnedFd,
    place: PathBuf,
    /// What is to come, the next one last.
    rest: Vec<OsString>,
    links: usize,
}

impl Walk {
    /// Begins to go along `path`; the links of the user `root` are followed.
    ///
    /// # Errors
    /// If the root directory or the working directory cannot be told.
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

    /// Lets a name come next that was taken.
    pub(super) fn put_back(&mut self, name: OsString) {
        self.rest.push(name);
    }

    /// Whether no name is to come.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The directory that it has come to.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether it has come to /proc: what that calls links is the kernel's. /dev/stderr leads through two of them.
    pub(super) fn is_in_proc(&self) -> io::Result<bool> {
        Ok(fstatfs(&self.directory)?.filesystem_type() == PROC_SUPER_MAGIC)
    }

    /// Goes on to the directory of this name, or has the way begin that a link of this name leads.
    ///
    /// # Errors
    /// What open fails with, and if the link is not followed.
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

    /// Has the way begin that a link leads.
    ///
    /// # Errors
    /// If others than root can have made it, or there were too many.
    pub(super) fn follow(&mut self, name: &OsStr, link: &FileStat) -> Result<(), PathError> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let directory = fstat(&self.directory)?;
        let made_by_root = [link.st_uid, directory.st_uid] == [self.root; 2];
        // Others can give a link a second name where they can write, and it is still the owner's.
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

    /// Lets a path come next.
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

/// Opens the directory at `path`; the links of the user `root` are followed.
///
/// # Errors
/// What open fails with, and if a link of somebody else's is on the way.
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

/// Whether nobody but the user `root` has put anything into a directory.
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
