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
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::base::{locks::Mark, process::looks::Looks};

/// The mode of the directories: all may pass, so that a process can read its own limits, and root
/// alone may open them. Whoever can open a directory can lock and mark it, and a fenced process must not be
/// able to pass for its supervisor, or to keep others from making fences.
const MODE: u32 = 0o711;

/// How often a cgroup that should become empty is looked at.
const POLL: Duration = Duration::from_millis(5);

/// One cgroup.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

/// The way into a cgroup.
#[derive(Debug)]
pub struct Entry {
    /// Its directory.
    pub directory: File,
    /// Its `cgroup.procs`, open for writing: for where a process cannot be made in it, but can move there.
    pub procs: File,
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

    /// Marks it as supervised, by this process, as long as the mark and the process live.
    ///
    /// # Errors
    /// If it cannot be opened or marked.
    pub fn supervise(&self) -> Result<Mark> {
        Mark::set(self.open()?).with_context(|| format!("cannot mark {}", self.directory.display()))
    }

    /// Whether a supervisor lives; a cgroup that is gone has none. Takes nothing that another could see.
    ///
    /// # Errors
    /// If it cannot be opened or asked about.
    pub fn is_supervised(&self) -> Result<bool> {
        let context = || format!("cannot ask who supervises {}", self.directory.display());
        match File::open(&self.directory) {
            Ok(directory) => Mark::is_on(&directory).with_context(context),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).with_context(context),
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

    /// The threads in it and below, in no order; 0 for one of a pid namespace that is not seen from here.
    ///
    /// Beside those of the processes these are threads that a process has left whose first one has ended: such
    /// a process is in no list of processes (`css_task_iter_advance` in kernel/cgroup/cgroup.c).
    ///
    /// # Errors
    /// What reading fails with; a cgroup that is gone has none.
    pub fn threads(&self) -> io::Result<Vec<i32>> {
        let mut threads = Vec::new();
        for directory in self.subtree()? {
            match fs::read_to_string(directory.join("cgroup.threads")) {
                Ok(text) => threads.extend(text.lines().filter_map(|l| l.parse::<i32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(threads)
    }

    /// Its id, which no other cgroup gets while the host is up; `None` if it is gone.
    ///
    /// # Errors
    /// What reading fails with.
    pub fn id(&self) -> io::Result<Option<u64>> {
        match fs::metadata(&self.directory) {
            Ok(metadata) => Ok(Some(metadata.ino())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
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
            let _ = fs::write(&kill_file, "1");
            // It passes over a process whose first thread has ended (`__cgroup_kill` in kernel/cgroup/cgroup.c goes by
            // these), which is reached by any other one.
            for thread in self.threads()? {
                // 0 is one of another pid namespace: kill(0) would be our own group.
                if thread > 0 {
                    // One that has ended since needs no signal.
                    let _ = kill(Pid::from_raw(thread), Signal::SIGKILL);
                }
            }
            if Instant::now() >= deadline {
                bail!(
                    "what runs in {} was killed and does not end: {}",
                    self.directory.display(),
                    describe(&self.threads()?, &mut Looks::default())
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

/// What is left in a cgroup of which the kernel lists these threads, in words.
fn describe(threads: &[i32], looks: &mut Looks) -> String {
    let (hidden, seen): (Vec<i32>, Vec<i32>) = threads.iter().partition(|tid| **tid <= 0);
    let mut words = vec![looks.describe_all(&seen)];
    words.retain(|words| !words.is_empty());
    if !hidden.is_empty() {
        words.push(format!(
            "{} threads of a pid namespace that is not seen from here",
            hidden.len()
        ));
    }
    if words.is_empty() {
        return "the kernel counts processes there and lists none: they are ending".to_owned();
    }
    words.join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_described_whoever_it_is() {
        let own = i32::try_from(std::process::id()).unwrap();
        let describe = |threads: &[i32]| describe(threads, &mut Looks::here());
        let described = describe(&[own, 0, 0]);
        assert!(
            described.contains(&format!("process {own} (")),
            "{described}"
        );
        let hidden = "2 threads of a pid namespace that is not seen from here";
        assert!(described.ends_with(hidden), "{described}");
        assert!(describe(&[]).contains("they are ending"));
        assert!(describe(&[own; 9]).ends_with("4 more threads"));
    }
}
