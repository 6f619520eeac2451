//! A file that is written whole beside the one it is to replace, and then takes its place in one step.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, fchmod};

use super::{directory::Directory, file_type::other_than_regular};
use crate::base::random;

/// What is added to the name of a file, in a directory that only root can write to, while it is written.
pub const NEW_SUFFIX: &str = ".new";

/// A file that is written, and not in its place yet. Without [`Staged::keep`] it goes when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Staged {
    directory: Directory,
    file: File,
    /// What it is called now.
    new: OsString,
    /// What it is to be called.
    name: OsString,
    in_place: bool,
}

impl Staged {
    /// Writes `bytes` to a new file in `directory` that is to be called `name`; `mode` is its mode,
    /// whatever the umask is.
    ///
    /// # Errors
    /// If it cannot be written as a whole, or something else than a regular file has the name.
    pub fn write(directory: Directory, name: &OsStr, bytes: &[u8], mode: Mode) -> Result<Self> {
        check_target(&directory, name)?;
        let context = || format!("cannot write {}", directory.path_of(name).display());
        let new = if directory.is_private() {
            // A name that is known, so that it can be found if this process is killed.
            let mut new = name.to_owned();
            new.push(NEW_SUFFIX);
            directory.remove(&new).with_context(context)?;
            new
        } else {
            unforeseeable()
        };
        let file = directory.create(&new).with_context(context)?;
        // From here on it is removed if anything fails.
        let mut staged = Self {
            directory,
            file,
            new,
            name: name.to_owned(),
            in_place: false,
        };
        let written = staged.fill(bytes, mode);
        written.with_context(|| staged.cannot_write())?;
        Ok(staged)
    }

    fn fill(&mut self, bytes: &[u8], mode: Mode) -> io::Result<()> {
        self.file.write_all(bytes)?;
        fchmod(&self.file, mode)?;
        // Some file systems find out here that they have no room.
        self.file.sync_data()
    }

    /// The file, which is open to be read and written.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// If something else than a regular file is there by now, or what rename fails with.
    pub fn keep(mut self) -> Result<()> {
        check_target(&self.directory, &self.name)?;
        self.directory
            .rename(&self.new, &self.name)
            .with_context(|| self.cannot_write())?;
        self.in_place = true;
        Ok(())
    }

    fn cannot_write(&self) -> String {
        let path = self.directory.path_of(&self.name);
        format!("cannot write {}", path.display())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.in_place {
            // What went wrong before has been told.
            let _ = self.directory.remove(&self.new);
        }
    }
}

/// Writes a file as a whole, in one step for whoever reads it. It is made anew: no link is followed, and
/// only a regular file is replaced.
///
/// # Errors
/// If it cannot be written; what was there before is still there then.
pub fn replace(path: &Path, bytes: &[u8], mode: Mode) -> Result<()> {
    let (directory, name) = Directory::of(path)?;
    Staged::write(directory, name, bytes, mode)?.keep()
}

/// Makes sure that nothing but a regular file is replaced. Only who can write to the directory can put
/// something else there after that, and it would be replaced, not written to.
fn check_target(directory: &Directory, name: &OsStr) -> Result<()> {
    let path = directory.path_of(name);
    let found = directory
        .look_at(name)
        .with_context(|| format!("cannot look at {}", path.display()))?;
    if let Some(kind) = found.and_then(|found| other_than_regular(found.st_mode)) {
        bail!(
            "cannot write {}: it is {kind}, and only a regular file is replaced. Give another path, or \
             remove it",
            path.display()
        );
    }
    Ok(())
}

/// A name that nobody can have made something under.
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
            let error = replace(&path(name), b"new", MODE).unwrap_err().to_string();
            assert!(error.contains(&format!("it is {kind},")), "{error}");
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
