//! Opens a log file to append to, wherever it is: in a directory of root's, of the user who called sudo, or in one
//! that everybody can write to, such as /tmp.
//!
//! The path is walked name by name (`walk.rs`). Links and files that others may have made are neither followed nor
//! written to.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::fd::AsRawFd as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat},
    sys::{
        stat::{Mode, fstat, fstatat},
        statfs::{FsType, fstatfs},
    },
};

use super::{
    file_type::other_than_regular,
    trusted::is_fifo,
    walk::{Walk, is_kept, is_link},
};
pub use super::{rotation::Place, trusted::Trusted, walk::PathError};

/// The mode of a new file, before the umask.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// `PIPEFS_MAGIC` in linux/magic.h: pipes without a name.
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);

/// How often the last name is looked up again if the file appears or disappears meanwhile.
const MOST_TRIES: usize = 16;

/// A file that was opened to append to.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// The place of a regular file; `None` for a file that cannot be renamed: a device, a FIFO, or one of /proc.
    pub place: Option<Place>,
    /// Whether its path is in /proc, so that it names a file that a process has open.
    pub is_of_process: bool,
}

/// Opens a file to append to, and makes it if it does not exist.
///
/// Opening a FIFO waits for a reader; `waits` is called before that.
///
/// # Errors
/// Errors of open. Also if the file, or a link on the way, is refused: see [`Refusal`](super::walk::Refusal).
pub fn open_to_append(
    path: &Path,
    trusted: &Trusted,
    waits: impl Fn(),
) -> Result<Opened, PathError> {
    let mut opening = Opening {
        trusted,
        waits: &waits,
        walk: Walk::along(path, trusted.root)?,
        tries: 0,
    };
    while let Some(name) = opening.walk.next() {
        if let Some(opened) = opening.go(name)? {
            return Ok(opened);
        }
    }
    Err(Errno::EISDIR.into())
}

struct Opening<'a> {
    trusted: &'a Trusted,
    waits: &'a dyn Fn(),
    walk: Walk,
    tries: usize,
}

impl Opening<'_> {
    /// Walks on by one name; returns the file if the name was the last.
    fn go(&mut self, name: OsString) -> Result<Option<Opened>, PathError> {
        if !self.walk.is_at_end() {
            self.walk.pass(&name)?;
            return Ok(None);
        }
        let directory = self.walk.directory();
        if self.walk.is_in_proc()? {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let target = openat(directory, &*name, flags, Mode::empty())?;
            let found = fstat(&target)?;
            // A pipe without a name can only be reached by a process that was given it.
            if is_fifo(&found) && fstatfs(&target)?.filesystem_type() != PIPEFS_MAGIC {
                self.trusted
                    .check_fifo(&found)
                    .map_err(|why| self.walk.refused(&name, why))?;
            }
            let file = openat(directory, &*name, to_append(), Mode::empty())?;
            return Ok(Some(Opened {
                file: file.into(),
                place: None,
                is_of_process: true,
            }));
        }
        match fstatat(directory, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => self.create(name),
            Ok(found) if is_link(&found) => {
                self.walk.follow(&name, &found)?;
                Ok(None)
            }
            found => {
                found?;
                self.open_found(name)
            }
        }
    }

    fn create(&mut self, name: OsString) -> Result<Option<Opened>, PathError> {
        let flags = to_append() | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        match openat(self.walk.directory(), &*name, flags, MODE) {
            // The file has appeared since.
            Err(Errno::EEXIST) => self.again(name),
            made => self.opened(made?.into(), &name).map(Some),
        }
    }

    fn open_found(&mut self, name: OsString) -> Result<Option<Opened>, PathError> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(self.walk.directory(), &*name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return self.again(name),
            file => file?,
        };
        let found = fstat(&file)?;
        if is_link(&found) {
            return self.again(name);
        }
        let directory = fstat(self.walk.directory())?;
        if !is_kept(&directory, self.trusted.root) {
            self.trusted
                .check_shared(&directory, &found)
                .map_err(|why| self.walk.refused(&name, why))?;
        }
        if is_fifo(&found) {
            self.trusted
                .check_fifo(&found)
                .map_err(|why| self.walk.refused(&name, why))?;
        }
        // By descriptor, so that the file that was checked is opened.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let opened = match open(
            path.as_str(),
            to_append() | OFlag::O_NONBLOCK,
            Mode::empty(),
        ) {
            // A FIFO without a reader (fifo(7)).
            Err(Errno::ENXIO) if is_fifo(&found) => {
                (self.waits)();
                open(path.as_str(), to_append(), Mode::empty())?
            }
            opened => {
                let opened = opened?;
                // Writing may wait for the reader: the sink has a thread of its own.
                fcntl(&opened, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
                opened
            }
        };
        if other_than_regular(found.st_mode).is_some() {
            return Ok(Some(Opened {
                file: opened.into(),
                place: None,
                is_of_process: false,
            }));
        }
        self.opened(opened.into(), &name).map(Some)
    }

    /// A regular file of the current directory.
    fn opened(&self, file: File, name: &OsStr) -> Result<Opened, PathError> {
        let place = Place::new(self.walk.directory(), name, self.walk.place().to_owned())?;
        Ok(Opened {
            file,
            place: Some(place),
            is_of_process: false,
        })
    }

    fn again(&mut self, name: OsString) -> Result<Option<Opened>, PathError> {
        self.tries += 1;
        if self.tries > MOST_TRIES {
            return Err(Errno::EAGAIN.into());
        }
        self.walk.put_back(name);
        Ok(None)
    }
}

fn to_append() -> OFlag {
    OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC | OFlag::O_NOCTTY
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{self, Write as _},
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
    };

    use nix::unistd::{geteuid, mkfifo};

    use super::*;
    use crate::base::files::walk::Refusal;

    fn append(path: &Path, trusted: &Trusted) -> Result<(), PathError> {
        let mut opened = open_to_append(path, trusted, || {})?;
        Ok(opened.file.write_all(b"line\n")?)
    }

    fn refusal(appended: Result<(), PathError>) -> Option<Refusal> {
        match appended {
            Ok(()) => None,
            Err(PathError::Refused { why, .. }) => Some(why),
            Err(PathError::Io(error)) => panic!("{error}"),
        }
    }

    /// A directory, with the user who runs the tests as the trusted user, and with another one.
    fn scene(mode: u32) -> (tempfile::TempDir, PathBuf, Trusted, Trusted) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let owner = geteuid().as_raw();
        let trusted = |root| Trusted {
            root,
            caller: Some(owner),
            command: None,
        };
        (dir, path, trusted(owner), trusted(owner + 1))
    }

    #[test]
    fn a_file_is_made_and_appended_to() {
        for mode in [0o755, 0o775, 0o1777] {
            let (_dir, logs, trusted, _) = scene(mode);
            let log = logs.join("log");
            append(&log, &trusted).unwrap();
            append(&logs.join("../logs/./log"), &trusted).unwrap();
            assert_eq!(fs::read_to_string(log).unwrap(), "line\nline\n");
        }
    }

    #[test]
    fn own_links_are_followed_and_others_are_not() {
        let (dir, logs, trusted, others) = scene(0o755);
        let target = dir.path().join("target");
        symlink("../target", logs.join("link")).unwrap();
        symlink(dir.path(), logs.join("directory")).unwrap();
        for path in [logs.join("link"), logs.join("directory/target")] {
            append(&path, &trusted).unwrap();
            assert_eq!(refusal(append(&path, &others)), Some(Refusal::Link));
        }
        assert_eq!(fs::read_to_string(target).unwrap(), "line\nline\n");
        symlink("round", logs.join("round")).unwrap();
        let round = append(&logs.join("round"), &trusted);
        assert!(
            matches!(&round, Err(PathError::Io(error)) if error.raw_os_error() == Some(Errno::ELOOP as i32)),
            "{round:?}"
        );
    }

    #[test]
    fn a_second_name_is_not_taken_where_others_can_write() {
        let second = Some(Refusal::SecondName);
        for (mode, expected) in [(0o755, None), (0o1777, second), (0o775, second)] {
            let (dir, logs, trusted, _) = scene(mode);
            let target = dir.path().join("target");
            fs::write(&target, "").unwrap();
            fs::hard_link(&target, logs.join("log")).unwrap();
            let appended = append(&logs.join("log"), &trusted);
            assert_eq!(refusal(appended), expected, "{mode:o}");
            let is_empty = fs::read_to_string(&target).unwrap().is_empty();
            assert_eq!(is_empty, expected.is_some());
        }
    }

    #[test]
    fn a_fifo_is_taken_that_the_command_cannot_read() {
        let (_dir, logs, trusted, _) = scene(0o755);
        let fifo = logs.join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        // Opened for both, so that no open waits.
        let reader = File::options().read(true).write(true).open(&fifo).unwrap();
        let by_number = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let theirs = Trusted {
            command: Some(trusted.root),
            ..trusted.clone()
        };
        for (mode, trusted, expected) in [
            (0o600, &trusted, None),
            (0o622, &trusted, None),
            (0o640, &trusted, Some(Refusal::ReadableFifo)),
            (0o604, &trusted, Some(Refusal::ReadableFifo)),
            (0o600, &theirs, Some(Refusal::CommandsFifo)),
        ] {
            fs::set_permissions(&fifo, fs::Permissions::from_mode(mode)).unwrap();
            for path in [&fifo, &by_number] {
                assert_eq!(refusal(append(path, trusted)), expected, "{mode:o}");
            }
        }
        // A pipe without a name.
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", writer.as_raw_fd());
        append(Path::new(&pipe), &theirs).unwrap();
    }

    #[test]
    fn devices_and_what_the_kernel_calls_links_are_opened() {
        let (_dir, logs, trusted, _) = scene(0o755);
        append(Path::new("/dev/null"), &trusted).unwrap();
        let log = File::create(logs.join("log")).unwrap();
        let by_number = format!("/proc/self/fd/{}", log.as_raw_fd());
        append(Path::new(&by_number), &trusted).unwrap();
        assert_eq!(fs::read_to_string(logs.join("log")).unwrap(), "line\n");
        assert!(open_to_append(&logs, &trusted, || {}).is_err());
        assert!(open_to_append(Path::new("/"), &trusted, || {}).is_err());
        assert!(open_to_append(&logs.join("no/such"), &trusted, || {}).is_err());
    }
}
