//! Begins a log file anew: NAME becomes NAME.1, NAME.1 becomes NAME.2, and so on.
//!
//! All names are those of one directory, which was opened with the log, so nobody can direct a rename elsewhere.
//! Whoever can write to that directory can rename its files anyway. In a sticky one, only root could rename other
//! users' files: those are not touched.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt as _, PermissionsExt, fchown},
    },
    path::PathBuf,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, fstat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};
use rustix::fs::{RenameFlags, renameat_with};

use super::{
    file_type::other_than_regular,
    trusted::Trusted,
    walk::{PathError, Refusal, is_kept},
};

/// The pause between attempts to lock a file, and their number.
const PAUSE: Duration = Duration::from_millis(10);
const TRIES: usize = 20;

/// The place of a regular file: its directory, and its name there.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    /// The path of the directory, for messages.
    path: PathBuf,
}

impl Place {
    /// The place of `name` in a directory.
    pub(super) fn new(directory: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            directory: directory.try_clone_to_owned()?,
            name: name.to_owned(),
            path,
        })
    }

    /// Moves the open `file` away from this place, and makes a new file here with the same owner and permissions. At
    /// most `keep` earlier files stay. Returns `None` if another file is here already, because another process has
    /// moved `file` away.
    ///
    /// # Errors
    /// Errors of the system calls; also if a file that is not the log's has one of the names. Then nothing was moved.
    /// If the new file cannot be made, there is no file here until the next call.
    pub fn begin_anew(
        &self,
        file: &File,
        keep: u32,
        trusted: &Trusted,
    ) -> Result<Option<File>, PathError> {
        let _lock = Lock::on(file);
        let before = file.metadata()?;
        match self.find(&self.name)? {
            Some(found) if (found.st_dev, found.st_ino) != (before.dev(), before.ino()) => {
                return Ok(None);
            }
            Some(_) => self.shift(keep, trusted)?,
            // The last call failed to make the file, or somebody has removed it.
            None => {}
        }
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let made: File = match openat(&self.directory, &*self.name, flags, mode) {
            Err(Errno::EEXIST) => return Ok(None),
            made => made?.into(),
        };
        let made_as = made.metadata()?;
        if (made_as.uid(), made_as.gid()) != (before.uid(), before.gid()) {
            fchown(&made, Some(before.uid()), Some(before.gid()))?;
        }
        made.set_permissions(PermissionsExt::from_mode(before.mode() & 0o777))?;
        Ok(Some(made))
    }

    /// Moves the file of this place, and those before it, by one number.
    fn shift(&self, keep: u32, trusted: &Trusted) -> Result<(), PathError> {
        if keep == 0 {
            return Ok(unlinkat(
                &self.directory,
                &*self.name,
                UnlinkatFlags::NoRemoveDir,
            )?);
        }
        let directory = fstat(&self.directory)?;
        // The file of the last number is replaced, unless a number before it is free.
        let mut last = keep;
        for number in 1..=keep {
            let name = self.numbered(number);
            let Some(found) = self.find(&name)? else {
                last = number;
                break;
            };
            check(&directory, &found, trusted).map_err(|why| PathError::Refused {
                path: self.path.join(&name),
                why,
            })?;
        }
        let is_free = self.find(&self.numbered(last))?.is_none();
        for number in (1..=last).rev() {
            let to = self.numbered(number);
            let from = match number {
                1 => self.name.clone(),
                _ => self.numbered(number - 1),
            };
            // Every other number has just become free.
            if number == last && !is_free {
                renameat(&self.directory, &*from, &self.directory, &*to)?;
            } else {
                self.rename_to_free(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Renames a file, unless there is one of the new name.
    fn rename_to_free(&self, from: &OsStr, to: &OsStr) -> nix::Result<()> {
        let directory = &self.directory;
        match renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
            // Some file systems, such as NFS, cannot do that.
            Err(rustix::io::Errno::INVAL) => renameat(directory, from, directory, to),
            renamed => renamed.map_err(|errno| Errno::from_raw(errno.raw_os_error())),
        }
    }

    fn numbered(&self, number: u32) -> OsString {
        let mut name = self.name.clone();
        name.push(format!(".{number}"));
        name
    }

    fn find(&self, name: &OsStr) -> nix::Result<Option<FileStat>> {
        match fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// Checks a file that has the name of an earlier log.
fn check(directory: &FileStat, found: &FileStat, trusted: &Trusted) -> Result<(), Refusal> {
    if other_than_regular(found.st_mode).is_some() {
        return Err(Refusal::NoLog);
    }
    if is_kept(directory, trusted.root) {
        return Ok(());
    }
    trusted.check_shared(directory, found)
}

/// A lock on a log while it is moved, so that fences that share it do not move it at the same moment.
///
/// Everybody who can read the file can have such a lock, so it is not waited for without a limit. Without it, two
/// fences could lose an earlier file too early.
struct Lock<'a>(&'a File);

impl<'a> Lock<'a> {
    fn on(file: &'a File) -> Option<Self> {
        for _ in 0..TRIES {
            if file.try_lock().is_ok() {
                return Some(Self(file));
            }
            thread::sleep(PAUSE);
        }
        None
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Closing the file unlocks it as well.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests;
