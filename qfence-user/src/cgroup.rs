//! Owns cgroups, with `hierarchy.rs`: makes, locks, lists, empties and removes one.
//!
//! cgroups-rs sets resource limits (`limits.rs`). Making a cgroup is done here: the crate's create
//! succeeds where the cgroup exists already, so that it cannot claim a name.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::child::Entry;

/// The mode of the directories: all may pass, so that a process can read its own limits, and root
/// alone may open them. Whoever can open a directory can lock it, and a fenced process must not be
/// able to pass for its supervisor, or to keep others from making fences.
const MODE: u32 = 0o711;

/// How often a cgroup that should become empty is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A lock on a cgroup's directory; dropped with the process that holds it, however that ends.
pub type Lock = Flock<File>;

/// One cgroup.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// The cgroup of a directory, whether it exists or not.
    #[must_use]
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes it; an error if it exists.
    ///
    /// # Errors
    /// What mkdir fails with.
    pub fn create(&self) -> io::Result<()> {
        make_directory(&self.directory)
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// Opens its directory, as programs are attached to it.
    ///
    /// # Errors
    /// What open fails with.
    pub fn open(&self) -> Result<File> {
        File::open(&self.directory)
            .with_context(|| format!("cannot open the cgroup {}", self.directory.display()))
    }

    /// Locks it; `None` if a supervisor has it.
    ///
    /// # Errors
    /// If it cannot be opened or locked.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        match Flock::lock(self.open()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => {
                Err(errno).with_context(|| format!("cannot lock {}", self.directory.display()))
            }
        }
    }

    /// The way into it, for a process that is being made.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn entry(&self) -> Result<Entry> {
        let path = self.directory.join("cgroup.procs");
        Ok(Entry {
            directory: self.open()?,
            procs: OpenOptions::new()
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?,
        })
    }

    /// The processes in it and below, in no order.
    ///
    /// # Errors
    /// What reading fails with; a cgroup that is gone has none.
    pub fn pids(&self) -> io::Result<Vec<Pid>> {
        let mut pids = Vec::new();
        for directory in self.subtree()? {
            // A cgroup in threaded mode has no readable list; its domain, above, has.
            match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => {
                    pids.extend(
                        text.lines()
                            .filter_map(|l| l.parse().ok())
                            .map(Pid::from_raw),
                    );
                }
                Err(error) if is_gone(&error) || is_threaded(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    /// Its id, as the kernel names it elsewhere; see [`Cgroup::ids`].
    ///
    /// # Errors
    /// If it is not there.
    pub fn id(&self) -> Result<u64> {
        let metadata = fs::metadata(&self.directory)
            .with_context(|| format!("cannot look at {}", self.directory.display()))?;
        Ok(metadata.ino())
    }

    /// Its id and those of the cgroups below, as the kernel names them elsewhere: the inodes of their
    /// directories (`cgroup_id` in include/linux/cgroup.h).
    ///
    /// # Errors
    /// What reading fails with; a cgroup that is gone has none.
    pub fn ids(&self) -> io::Result<BTreeSet<u64>> {
        let mut ids = BTreeSet::new();
        for directory in self.subtree()? {
            match fs::metadata(&directory) {
                Ok(metadata) => {
                    ids.insert(metadata.ino());
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ids)
    }

    /// Whether a live process is in it or below.
    ///
    /// # Errors
    /// What reading fails with; a cgroup that is gone has none.
    pub fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.directory.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to every process in it and below.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        for pid in self.pids()? {
            // A process of another pid namespace is listed as 0: kill(0) would be our own group.
            if pid.as_raw() > 0 {
                // One that has ended since needs no signal.
                let _ = kill(pid, signal);
            }
        }
        Ok(())
    }

    /// Kills every process in it and below, and waits until none is left.
    ///
    /// # Errors
    /// If some are left after `patience`.
    pub fn kill_all(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let kill_file = self.directory.join("cgroup.kill");
        while self.is_populated()? {
            // Linux 5.14; one write, and a fork cannot slip through. Before, round after round.
            if fs::write(&kill_file, "1").is_err() {
                self.signal(Signal::SIGKILL)?;
            }
            if Instant::now() >= deadline {
                bail!(
                    "processes are left in {}: {:?}",
                    self.directory.display(),
                    self.pids()?
                );
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits until no process is left in it; whether that came to be.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn wait_empty(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        while self.is_populated()? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(POLL);
        }
        Ok(true)
    }

    /// Removes it and the cgroups below, all of them empty.
    ///
    /// # Errors
    /// What rmdir fails with; that it is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        for directory in self.subtree()?.into_iter().rev() {
            match fs::remove_dir(&directory) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot remove the cgroup {}", directory.display())
                    });
                }
            }
        }
        Ok(())
    }

    /// Its directory and those below, each after its parent.
    fn subtree(&self) -> io::Result<Vec<PathBuf>> {
        let mut all = vec![self.directory.clone()];
        let mut next = 0;
        while let Some(directory) = all.get(next).cloned() {
            match directories_in(&directory) {
                Ok(below) => all.extend(below),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
            next += 1;
        }
        Ok(all)
    }
}

/// Makes a directory with [`MODE`], whatever the umask.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(MODE).create(directory)?;
    set_mode(directory)
}

/// Gives a directory [`MODE`].
pub(crate) fn set_mode(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(MODE))
}

/// The directories in a directory: the cgroups in a cgroup.
pub(crate) fn directories_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// ENODEV is what an open file of a cgroup says once the cgroup is gone.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn is_threaded(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32)
}
