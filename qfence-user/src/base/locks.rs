//! Locks on directories and files. The kernel releases them when their process ends.
//!
//! There are two independent kinds. A *mark* shows that a process is alive. It is a shared lock of an open file
//! description. A read-only descriptor can have it, and any descriptor can query it without taking a lock
//! (`fcntl_getlk` and `do_fcntl_add_lock` in fs/locks.c; Linux 3.15). An *exclusive* lock is taken before a change,
//! and waited for.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
    libc::{self, c_int, c_short},
    sys::stat::{major, minor},
};

use crate::base::{
    interruptible::{self, WaitError},
    process::looks::Looks,
};

/// The most bytes that are read of the kernel's table of locks. A fenced process can make it longer.
const TABLE: u64 = 1 << 20;

/// A mark on a directory or a file, as long as this lives.
#[derive(Debug)]
pub struct Mark(#[expect(dead_code, reason = "held, not used")] File);

impl Mark {
    /// Marks a directory or a file.
    ///
    /// # Errors
    /// Errors of fcntl.
    pub fn set(directory: File) -> Result<Self, Errno> {
        fcntl(
            &directory,
            FcntlArg::F_OFD_SETLK(&whole(libc::F_RDLCK, libc::SEEK_SET)?),
        )?;
        Ok(Self(directory))
    }

    /// Whether a directory or file is marked. Takes no lock, so that simultaneous queries do not see each other.
    ///
    /// # Errors
    /// Errors of fcntl.
    pub fn is_on(directory: &File) -> Result<bool, Errno> {
        let mut found = whole(libc::F_WRLCK, libc::SEEK_SET)?;
        fcntl(directory, FcntlArg::F_OFD_GETLK(&mut found))?;
        Ok(c_int::from(found.l_type) != libc::F_UNLCK)
    }
}

/// A lock on a whole file.
fn whole(kind: c_int, whence: c_int) -> Result<libc::flock, Errno> {
    let short = |number: c_int| c_short::try_from(number).map_err(|_| Errno::EINVAL);
    Ok(libc::flock {
        l_type: short(kind)?,
        l_whence: short(whence)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    })
}

/// A lock that only one process can have.
pub type Exclusive = Flock<File>;

/// Takes the exclusive lock on a directory. A wait of more than two seconds is reported with the process that has the
/// lock. A blocked signal that would end the process ends the wait.
///
/// # Errors
/// If the directory cannot be opened or locked, or [`interruptible::Interrupted`].
pub fn exclusive(directory: &Path) -> Result<Exclusive> {
    let context = || format!("cannot lock {}", directory.display());
    exclusive_on(File::open(directory).with_context(context)?, directory)
}

/// The exclusive lock on a directory, without waiting; `None` if another process has it.
///
/// # Errors
/// If the directory cannot be opened or locked.
pub fn try_exclusive(directory: &Path) -> Result<Option<Exclusive>> {
    let context = || format!("cannot lock {}", directory.display());
    let file = File::open(directory).with_context(context)?;
    Ok(try_exclusive_on(file, directory)?.ok())
}

/// The same as [`try_exclusive`] for a directory that is open; `directory` is its path. Returns the open directory if another
/// process has the lock.
///
/// # Errors
/// If it cannot be locked.
pub fn try_exclusive_on(file: File, directory: &Path) -> Result<Result<Exclusive, File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => {
            Err(errno).with_context(|| format!("cannot lock {}", directory.display()))
        }
    }
}

/// The same as [`exclusive`] for a directory that is open; `directory` is its path.
///
/// # Errors
/// As [`exclusive`].
pub fn exclusive_on(file: File, directory: &Path) -> Result<Exclusive> {
    let file = match try_exclusive_on(file, directory)? {
        Ok(lock) => return Ok(lock),
        Err(file) => file,
    };
    let what = || {
        let holder =
            holder_of(directory).map(|pid| format!(", which {} has", Looks::default().name(pid)));
        format!(
            "for the lock on {}{}",
            directory.display(),
            holder.unwrap_or_default()
        )
    };
    interruptible::wait(what, move || Flock::lock(file, FlockArg::LockExclusive))
        .map_err(WaitError::into_anyhow)?
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", directory.display()))
}

/// The process that has the exclusive lock on a directory, if the kernel shows it.
#[must_use]
pub fn holder_of(directory: &Path) -> Option<i32> {
    let file = fs::metadata(directory).ok()?;
    let mut table = String::new();
    let locks = File::open("/proc/locks").ok()?;
    locks.take(TABLE).read_to_string(&mut table).ok()?;
    find_holder(&table, (major(file.dev()), minor(file.dev())), file.ino())
}

/// The process that has an exclusive flock(2) lock on a file, from the table in /proc/locks (`lock_get_status` in
/// fs/locks.c).
fn find_holder(table: &str, device: (u64, u64), inode: u64) -> Option<i32> {
    let file = format!("{:02x}:{:02x}:{inode}", device.0, device.1);
    table.lines().find_map(|line| {
        // In the line of a waiting process the second word is "->".
        match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            [_, "FLOCK", _, "WRITE", pid, on, ..] if on == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_mark_is_seen_by_all_who_ask_and_ends_with_who_set_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::open(dir.path()).unwrap();
        assert!(!Mark::is_on(&open()).unwrap());
        let mark = Mark::set(open()).unwrap();
        assert!(Mark::is_on(&open()).unwrap());
        drop(mark);
        assert!(!Mark::is_on(&open()).unwrap());
    }

    #[test]
    fn those_who_ask_do_not_see_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let ask = || {
            let open = || File::open(dir.path()).unwrap();
            (0..1000).any(|_| Mark::is_on(&open()).unwrap())
        };
        thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            for asked in asking {
                assert!(!asked.join().unwrap());
            }
        });
    }

    #[test]
    fn a_lock_is_one_process_s_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = exclusive(dir.path()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder_of(dir.path()), Some(own));
        let waiting = thread::spawn({
            let path = dir.path().to_owned();
            move || exclusive(&path).map(drop)
        });
        drop(lock);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn who_waits_for_a_lock_does_not_have_it() {
        let table = "1: FLOCK  ADVISORY  READ  5 00:1b:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 6 00:1b:78 0 EOF\n\
                     3: OFDLCK ADVISORY  READ  7 00:1b:77 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 8 00:1b:77 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 9 00:1b:77 0 EOF\n";
        assert_eq!(find_holder(table, (0, 0x1b), 77), Some(9));
        assert_eq!(find_holder(table, (0, 0x1b), 79), None);
        assert_eq!(find_holder(table, (1, 0x1b), 77), None);
    }
}
