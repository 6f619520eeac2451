//! Opens a file that is appended to, wherever it is: in a directory of root's, of the user who called sudo,
//! or in one that everybody can write to, such as /tmp.
//!
//! The path is walked name by name (`walk.rs`): what others may have put there is not followed, nor written to.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, fstatat},
        statfs::{FsType, fstatfs},
    },
    unistd::{Uid, geteuid},
};

use super::{
    file_type::other_than_regular,
    walk::{Walk, is_kept, is_link},
};
use crate::base::identity::Sudo;

/// The mode of a file that is made, less the umask.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// The bit of a mode by which everybody may write.
const FOR_ALL: u32 = 0o002;

/// The bits by which others than the owner may read. With an access control list those of the group are the mask of all
/// that it has (`posix_acl_equiv_mode` in fs/posix_acl.c).
const TO_READ: u32 = 0o044;

/// `PIPEFS_MAGIC` in linux/magic.h: pipes without a name.
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);

/// How often what turns up or goes at the same moment is looked at anew.
const MOST_TRIES: usize = 16;

/// Whose links are followed, and whose files are taken in a directory that everybody can write to.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// Root. The links of nobody else: the command runs as who called sudo as a rule, so what is theirs a process in the
    /// fence can have made, also between one opening and the next.
    root: u32,
    /// Who called sudo.
    caller: Option<u32>,
    /// Whom the command runs as, if it does not run as root.
    command: Option<u32>,
}

impl Trusted {
    /// Root, and who called sudo as the environment says, for a command that runs as `user`; `None` if that is root.
    #[must_use]
    pub fn from_env(user: Option<Uid>) -> Self {
        let sudo = Sudo::from_env().uid.and_then(|uid| uid.parse().ok());
        Self {
            root: geteuid().as_raw(),
            caller: sudo,
            command: user.filter(|user| !user.is_root()).map(Uid::as_raw),
        }
    }

    fn owns_files(&self, user: u32) -> bool {
        user == self.root || Some(user) == self.caller
    }
}

/// Opens a file to append to, and makes it where it is not there.
///
/// A FIFO is waited for until somebody reads it; `waits` is called before that.
///
/// # Errors
/// What open fails with; and if a symbolic link, a hard link or a file of somebody else's is in the way, or a FIFO whose
/// lines the command could read, which nobody else gets then.
pub fn open_to_append(path: &Path, trusted: &Trusted, waits: impl Fn()) -> io::Result<File> {
    let mut opening = Opening {
        trusted,
        waits: &waits,
        walk: Walk::along(path, trusted.root)?,
        tries: 0,
    };
    while let Some(name) = opening.walk.next() {
        if let Some(file) = opening.go(name)? {
            return Ok(file);
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
    /// Goes on by one name; the file, if it is the last.
    fn go(&mut self, name: OsString) -> io::Result<Option<File>> {
        if !self.walk.is_at_end() {
            self.walk.pass(&name)?;
            return Ok(None);
        }
        let directory = self.walk.directory();
        if self.walk.is_in_proc()? {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let target = openat(directory, &*name, flags, Mode::empty())?;
            let found = fstat(&target)?;
            // A pipe without a name is only for those who have been given it.
            if is_fifo(&found) && fstatfs(&target)?.filesystem_type() != PIPEFS_MAGIC {
                self.check_fifo(&name, &found)?;
            }
            let file = openat(directory, &*name, to_append(), Mode::empty())?;
            return Ok(Some(file.into()));
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

    fn create(&mut self, name: OsString) -> io::Result<Option<File>> {
        let flags = to_append() | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        match openat(self.walk.directory(), &*name, flags, MODE) {
            // It has turned up since.
            Err(Errno::EEXIST) => self.again(name),
            made => Ok(Some(made?.into())),
        }
    }

    fn open_found(&mut self, name: OsString) -> io::Result<Option<File>> {
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
            self.check_shared(&name, &directory, &found)?;
        }
        if is_fifo(&found) {
            self.check_fifo(&name, &found)?;
        }
        // That very file, whatever has its name by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let opened = match open(
            path.as_str(),
            to_append() | OFlag::O_NONBLOCK,
            Mode::empty(),
        ) {
            // A FIFO that nobody reads from (fifo(7)).
            Err(Errno::ENXIO) if is_fifo(&found) => {
                (self.waits)();
                open(path.as_str(), to_append(), Mode::empty())?
            }
            opened => {
                let opened = opened?;
                // Writing waits for whoever reads: the sink has a thread of its own.
                fcntl(&opened, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
                opened
            }
        };
        Ok(Some(opened.into()))
    }

    /// A file where others can put theirs.
    fn check_shared(&self, name: &OsStr, directory: &FileStat, found: &FileStat) -> io::Result<()> {
        let is_theirs = self.trusted.owns_files(found.st_uid) || found.st_uid == directory.st_uid;
        if directory.st_mode & FOR_ALL != 0 && !is_theirs {
            return Err(self.walk.refusal(
                name,
                "is another user's, in a directory that everybody can write to. Remove it, or give another path",
            ));
        }
        if other_than_regular(found.st_mode).is_none() && found.st_nlink > 1 {
            return Err(self.walk.refusal(
                name,
                "is a file with more than one name, in a directory that others can write to: it may be another \
                 file of root's. Give another path",
            ));
        }
        Ok(())
    }

    /// Each line of a FIFO is for one who reads it: whoever else does takes it away.
    fn check_fifo(&self, name: &OsStr, found: &FileStat) -> io::Result<()> {
        if found.st_mode & TO_READ != 0 {
            return Err(self.walk.refusal(
                name,
                "is a FIFO that others than its owner may read: what they read is in no log. Make it with `mkfifo -m 600`",
            ));
        }
        if Some(found.st_uid) == self.trusted.command {
            return Err(self.walk.refusal(
                name,
                "is a FIFO of the user that the command runs as, which could take lines out of it. Give one of root's, or \
                 run the command as another user (--user)",
            ));
        }
        Ok(())
    }

    fn again(&mut self, name: OsString) -> io::Result<Option<File>> {
        self.tries += 1;
        if self.tries > MOST_TRIES {
            return Err(Errno::EAGAIN.into());
        }
        self.walk.put_back(name);
        Ok(None)
    }
}

fn is_fifo(file: &FileStat) -> bool {
    SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO
}

fn to_append() -> OFlag {
    OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC | OFlag::O_NOCTTY
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write as _,
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
    };

    use nix::unistd::mkfifo;

    use super::*;

    fn append(path: &Path, trusted: &Trusted) -> io::Result<()> {
        open_to_append(path, trusted, || {})?.write_all(b"line\n")
    }

    /// A directory, and who may have made something in it: who runs the tests, or nobody.
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
            let error = append(&path, &others).unwrap_err().to_string();
            assert!(error.contains("a symbolic link that others"), "{error}");
        }
        assert_eq!(fs::read_to_string(target).unwrap(), "line\nline\n");
        symlink("round", logs.join("round")).unwrap();
        let error = append(&logs.join("round"), &trusted).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ELOOP as i32));
    }

    #[test]
    fn a_second_name_is_not_taken_where_others_can_write() {
        for (mode, taken) in [(0o755, true), (0o1777, false), (0o775, false)] {
            let (dir, logs, trusted, _) = scene(mode);
            let target = dir.path().join("target");
            fs::write(&target, "").unwrap();
            fs::hard_link(&target, logs.join("log")).unwrap();
            let appended = append(&logs.join("log"), &trusted);
            assert_eq!(appended.is_ok(), taken, "{mode:o} {appended:?}");
            assert_eq!(fs::read_to_string(&target).unwrap().is_empty(), !taken);
        }
    }

    #[test]
    fn a_fifo_is_taken_that_the_command_cannot_read() {
        let (_dir, logs, trusted, _) = scene(0o755);
        let fifo = logs.join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        // Opened for both, so that nothing waits.
        let reader = File::options().read(true).write(true).open(&fifo).unwrap();
        let by_number = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let theirs = Trusted {
            command: Some(trusted.root),
            ..trusted.clone()
        };
        for (mode, trusted, taken) in [
            (0o600, &trusted, true),
            (0o622, &trusted, true),
            (0o640, &trusted, false),
            (0o604, &trusted, false),
            (0o600, &theirs, false),
        ] {
            fs::set_permissions(&fifo, fs::Permissions::from_mode(mode)).unwrap();
            for path in [&fifo, &by_number] {
                let appended = append(path, trusted);
                assert_eq!(appended.is_ok(), taken, "{mode:o} {appended:?}");
            }
        }
        // One without a name.
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
