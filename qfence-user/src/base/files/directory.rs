//! A directory in which files are made. It is opened once, so files are made in the directory that was checked,
//! whatever its path leads to later.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FileStat, Mode, fchmod, fstat, fstatat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

pub use super::owner::{DirectoryError, Others};
use super::{
    file_type::other_than_regular,
    owner::{check_others, check_owner, no_directory},
    walk::{PathError, open_directory},
};

/// The mode of directories that only root can use.
const PRIVATE: u32 = 0o700;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    is_private: bool,
}

impl Directory {
    /// Opens the directory at `path`, whoever owns it. Links on the way are followed only if nobody but root can have
    /// made them.
    ///
    /// # Errors
    /// Errors of open, and if a link is not followed.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        Ok(Self {
            fd: open_directory(path, geteuid().as_raw())?,
            path: path.to_owned(),
            is_private: false,
        })
    }

    /// Opens the directory of a file like [`Directory::open`], and returns the name of the file.
    ///
    /// # Errors
    /// If the path names no file, or if open fails.
    pub fn of(path: &Path) -> Result<(Self, &OsStr), DirectoryError> {
        let name = path.file_name().ok_or_else(|| DirectoryError::NoFile {
            path: path.to_owned(),
        })?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = Self::open(parent).map_err(|source| DirectoryError::Parent {
            path: parent.to_owned(),
            source,
        })?;
        Ok((directory, name))
    }

    /// Opens the directory at `path`, which must be root's and not a link. `others` limits the permissions of other
    /// users. `None` if it does not exist.
    ///
    /// # Errors
    /// If it is something else or another user's. Nothing in it is used then.
    pub fn trusted(path: &Path, others: Others) -> Result<Option<Self>, DirectoryError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(no_directory(path)),
            Err(errno) => return Err(DirectoryError::system("open", path, errno)),
        };
        let found = fstat(&fd).map_err(|errno| DirectoryError::system("look at", path, errno))?;
        check_owner(path, &found, geteuid())?;
        check_others(path, found.st_mode, others)?;
        Ok(Some(Self {
            fd,
            path: path.to_owned(),
            is_private: true,
        }))
    }

    /// Like [`Directory::trusted`], for a directory that must exist.
    ///
    /// # Errors
    /// As [`Directory::trusted`], and if it does not exist.
    pub fn private(path: &Path, others: Others) -> Result<Self, DirectoryError> {
        Self::trusted(path, others)?.ok_or_else(|| DirectoryError::Missing {
            path: path.to_owned(),
        })
    }

    /// Like [`Directory::private`], but makes the directory if it does not exist.
    ///
    /// # Errors
    /// As [`Directory::trusted`], and if it cannot be made.
    pub fn make_private(path: &Path) -> Result<Self, DirectoryError> {
        let mut maker = fs::DirBuilder::new();
        match maker.recursive(true).mode(PRIVATE).create(path) {
            // The check below reports the file that is there.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|error| DirectoryError::system("make", path, error))?,
        }
        Self::private(path, Others::Read)
    }

    /// Whether only root can make files in it.
    pub(super) fn is_private(&self) -> bool {
        self.is_private
    }

    /// A path of a file in this directory for system calls that take no descriptor. It stays correct if the directory
    /// is renamed. It is valid in this process, as long as this object lives.
    pub fn path_by_descriptor(&self, name: &OsStr) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// The path of a file in it, for messages.
    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// The status of the file of a name, without following a link; `None` if there is none.
    ///
    /// # Errors
    /// Errors of stat.
    pub fn look_at(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a new file to read and write; the name must not exist.
    ///
    /// # Errors
    /// Errors of open; EEXIST also for a link.
    pub(super) fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }

    /// Opens a file that only root can use, to read and append. Makes it if it does not exist.
    ///
    /// # Errors
    /// If it is no regular file, or if open fails.
    pub fn append(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NONBLOCK;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&self.fd, name, flags, mode)?;
        if let Some(kind) = other_than_regular(fstat(&file)?.st_mode) {
            return Err(io::Error::other(format!("it is {kind}")));
        }
        // Independent of the umask.
        fchmod(&file, mode)?;
        Ok(file.into())
    }

    /// Renames a file in it, and replaces the file of the new name if there is one.
    ///
    /// # Errors
    /// Errors of rename.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes a file from it.
    ///
    /// # Errors
    /// Errors of unlink; a missing file is no error.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_is_made_for_its_owner_alone_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qfence");
        assert!(Directory::trusted(&path, Others::Read).unwrap().is_none());
        for _ in 0..2 {
            Directory::make_private(&path).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn what_others_can_change_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qfence");
        fs::create_dir(&path).unwrap();
        for (mode, others, allowed) in [
            (0o755, Others::Read, true),
            (0o775, Others::Read, false),
            (0o757, Others::Read, false),
            (0o1777, Others::Read, false),
            (0o1777, Others::AddToSticky, true),
            (0o777, Others::AddToSticky, false),
            (0o700, Others::Nothing, true),
            (0o711, Others::Nothing, false),
            (0o740, Others::Nothing, false),
        ] {
            set_mode(&path, mode);
            let found = Directory::private(&path, others);
            assert_eq!(found.is_ok(), allowed, "{mode:o} {others:?} {found:?}");
        }
    }

    #[test]
    fn what_is_no_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        symlink(dir.path(), &link).unwrap();
        fs::write(&file, "").unwrap();
        for (path, kind) in [(&link, "a symbolic link"), (&file, "a file")] {
            for found in [
                Directory::make_private(path),
                Directory::private(path, Others::Read),
            ] {
                let error = found.unwrap_err();
                assert!(
                    matches!(&error, DirectoryError::NoDirectory { kind: found, .. } if *found == kind),
                    "{error}"
                );
            }
        }
        // The control: a directory that need not be root's may be behind a link.
        assert!(Directory::open(&link).is_ok());
    }

    #[test]
    fn only_regular_files_are_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        symlink("/dev/null", dir.path().join("link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(directory.append("link".as_ref()).is_err());
        assert!(directory.append("fifo".as_ref()).is_err());
        directory.append("file".as_ref()).unwrap();
        let mode = directory.look_at("file".as_ref()).unwrap().unwrap().st_mode;
        assert_eq!(mode & 0o777, 0o600);
    }
}
