//! A file that is written whole beside the one that it replaces, and then renamed over it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, fchmod};

use super::{
    directory::{Directory, DirectoryError},
    file_type::other_than_regular,
};
use crate::base::random;

/// The suffix of a file's name while it is written, in a directory that only root can write to.
pub const NEW_SUFFIX: &str = ".new";

/// Why a file cannot be replaced.
#[derive(Debug, thiserror::Error)]
pub enum StagedError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Something else than a regular file has its name.
    #[error(
        "cannot write {}: it is {kind}, and only a regular file is replaced. Give another path, or remove it",
        path.display()
    )]
    NotRegular {
        /// Its path.
        path: PathBuf,
        /// The type of the file there.
        kind: &'static str,
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

/// A file that is written, and not renamed into place yet. Without [`Staged::keep`] it is removed on drop.
#[derive(Debug)]
#[must_use]
pub struct Staged {
    directory: Directory,
    file: File,
    /// Its temporary name.
    new: OsString,
    /// Its final name.
    name: OsString,
    in_place: bool,
}

impl Staged {
    /// Writes `bytes` to a new file in `directory`, which [`Staged::keep`] will name `name`. Its mode is `mode`,
    /// independent of the umask.
    ///
    /// # Errors
    /// If it cannot be written completely, or something else than a regular file has the name.
    pub fn write(
        directory: Directory,
        name: &OsStr,
        bytes: &[u8],
        mode: Mode,
    ) -> Result<Self, StagedError> {
        check_target(&directory, name)?;
        let path = directory.path_of(name);
        let failed = |source| cannot("write", path.clone(), source);
        let new = if directory.is_private() {
            // The name is fixed, so that the file is found again if this process is killed.
            let mut new = name.to_owned();
            new.push(NEW_SUFFIX);
            directory.remove(&new).map_err(failed)?;
            new
        } else {
            unforeseeable()
        };
        let file = directory.create(&new).map_err(failed)?;
        // From here on a failure removes the file.
        let mut staged = Self {
            directory,
            file,
            new,
            name: name.to_owned(),
            in_place: false,
        };
        staged.fill(bytes, mode).map_err(failed)?;
        Ok(staged)
    }

    fn fill(&mut self, bytes: &[u8], mode: Mode) -> io::Result<()> {
        self.file.write_all(bytes)?;
        fchmod(&self.file, mode)?;
        // Some file systems report only here that they are full.
        self.file.sync_data()
    }

    /// The file, open to read and write.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Renames it into place.
    ///
    /// # Errors
    /// If something else than a regular file has the name by now, or if rename fails.
    pub fn keep(mut self) -> Result<(), StagedError> {
        check_target(&self.directory, &self.name)?;
        self.directory
            .rename(&self.new, &self.name)
            .map_err(|source| cannot("write", self.directory.path_of(&self.name), source))?;
        self.in_place = true;
        Ok(())
    }
}

fn cannot(operation: &'static str, path: PathBuf, source: io::Error) -> StagedError {
    StagedError::System {
        operation,
        path,
        source,
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.in_place {
            // The error that led here was reported.
            let _ = self.directory.remove(&self.new);
        }
    }
}

/// Replaces a file in one step, so that readers see the old file or the new one. No link is followed, and only a
/// regular file is replaced.
///
/// # Errors
/// If it cannot be written; the old file is unchanged then.
pub fn replace(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), StagedError> {
    let (directory, name) = Directory::of(path)?;
    Staged::write(directory, name, bytes, mode)?.keep()
}

/// Makes sure that only a regular file is replaced. A user who can write to the directory can put something else
/// there later. That would be replaced, but never written to.
fn check_target(directory: &Directory, name: &OsStr) -> Result<(), StagedError> {
    let path = directory.path_of(name);
    let found = directory
        .look_at(name)
        .map_err(|source| cannot("look at", path.clone(), source))?;
    match found.and_then(|found| other_than_regular(found.st_mode)) {
        Some(kind) => Err(StagedError::NotRegular { path, kind }),
        None => Ok(()),
    }
}

/// A name that nobody can predict.
fn unforeseeable() -> OsString {
    format!(".qfence-{:016x}{NEW_SUFFIX}", random::number()).into()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{
            fs::{PermissionsExt as _, symlink},
            net::UnixListener,
        },
    };

    use super::*;
    use crate::base::files::directory::Others;

    const MODE: Mode = Mode::from_bits_truncate(0o644);

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_by_one_of_the_mode_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"one", MODE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        replace(&path, b"two", MODE).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(names(dir.path()), ["file"]);
        assert!(replace(&dir.path().join("no/such"), b"x", MODE).is_err());
        assert!(replace(Path::new("/"), b"x", MODE).is_err());
        assert!(replace(&dir.path().join(".."), b"x", MODE).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "old").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink(path("none"), path("dangling")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(path("directory")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        let before = names(dir.path());
        for (name, kind) in [
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("fifo", "a FIFO"),
            ("directory", "a directory"),
            ("socket", "a socket"),
        ] {
            let was = fs::symlink_metadata(path(name)).unwrap().file_type();
            let error = replace(&path(name), b"new", MODE).unwrap_err();
            assert!(
                matches!(error, StagedError::NotRegular { kind: found, .. } if found == kind),
                "{error}"
            );
            assert_eq!(fs::symlink_metadata(path(name)).unwrap().file_type(), was);
        }
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "old");
        assert_eq!(names(dir.path()), before);
    }

    #[test]
    fn what_turns_up_while_it_is_written_is_not_replaced_either() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let staged = Staged::write(directory, "file".as_ref(), b"new", MODE).unwrap();
        symlink("/dev/null", dir.path().join("file")).unwrap();
        assert!(staged.keep().is_err());
        assert!(dir.path().join("file").is_symlink());
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn in_a_private_directory_what_a_killed_writer_left_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/dev/null", dir.path().join("file.new")).unwrap();
        let directory = Directory::private(dir.path(), Others::Read).unwrap();
        let staged = Staged::write(directory, "file".as_ref(), b"new", MODE).unwrap();
        assert_eq!(names(dir.path()), ["file.new"]);
        staged.keep().unwrap();
        assert_eq!(names(dir.path()), ["file"]);
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "new");
    }

    #[test]
    fn without_being_kept_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let staged = Staged::write(directory, "file".as_ref(), b"new", MODE).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(staged);
        assert_eq!(names(dir.path()).len(), 0);
    }
}
