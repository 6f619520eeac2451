//! The policy of a fence as it is kept: a file under /run/qfence, from which it can be compiled anew by
//! whoever changes it, its supervisor or another command.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        files::{
            PRIVATE_FILE,
            directory::{Directory, Others},
            staged::{NEW_SUFFIX, Staged},
        },
        locks::{self, Exclusive},
        process::looks::Looks,
        version,
    },
    kernel::pins,
    policy::{Policy, Sets},
};

/// The ending of the files' names.
const SUFFIX: &str = ".policy";

/// What a policy in force was compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// The rules.
    pub policy: Policy,
    /// The members of the sets.
    pub sets: Sets,
    /// The network namespace whose addresses these are: the inode of its file in /proc.
    pub netns: u64,
    /// How many policies the fence has had, with this one.
    pub generation: u64,
}

/// The file: what is kept, and the version of who wrote it.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    abi: u32,
    stored: T,
}

/// What every version's file has.
#[derive(Deserialize)]
struct Version {
    /// 0 in files of before there were versions.
    #[serde(default)]
    abi: u32,
}

/// Where the policy of one fence is kept.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    run: PathBuf,
    file: String,
    path: PathBuf,
    pins: PathBuf,
}

/// Keeps others from changing the policy of a fence, as long as this lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] Exclusive);

/// Which writing of the file one has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    inode: u64,
    changed: (i64, i64),
}

impl PolicyFile {
    /// The store of the fence `name` in the directory of descriptions; `pins` is that of its links.
    #[must_use]
    pub fn new(run: &Path, name: &str, pins: &Path) -> Self {
        let file = format!("{name}{SUFFIX}");
        Self {
            run: run.to_owned(),
            path: run.join(&file),
            file,
            pins: pins.to_owned(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until nobody else is about to change the policy.
    ///
    /// # Errors
    /// If there is nothing to lock: the fence is gone. Or [`Interrupted`](crate::base::interruptible::Interrupted).
    pub fn lock(&self) -> Result<Lock> {
        locks::exclusive_on(self.open()?, &self.pins).map(Lock)
    }

    /// Locks like [`PolicyFile::lock`]; `None` if somebody else is about to change the policy.
    ///
    /// # Errors
    /// As [`PolicyFile::lock`].
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        match Flock::lock(self.open()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).with_context(|| self.cannot_lock()),
        }
    }

    /// Who is about to change the policy, and what is locked, in words.
    #[must_use]
    pub fn holder(&self) -> String {
        let holder = locks::holder_of(&self.pins);
        let holder = holder.map_or_else(|| "somebody".to_owned(), |pid| Looks::default().name(pid));
        format!("{holder} has the lock on {}", self.pins.display())
    }

    /// The directory that is locked.
    fn open(&self) -> Result<fs::File> {
        pins::open(&self.pins).with_context(|| self.cannot_lock())
    }

    fn cannot_lock(&self) -> String {
        format!("cannot lock {}", self.pins.display())
    }

    /// What is kept; `None` before the first policy.
    ///
    /// # Errors
    /// If the file cannot be read or understood, or is of [another version](version::OtherVersion).
    pub fn read(&self) -> Result<Option<StoredPolicy>> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", self.path.display()))?,
        };
        let path = self.path.display();
        let no_policy = || format!("{path} is no policy of this version of qfence");
        let Version { abi } = serde_json::from_slice(&text).with_context(no_policy)?;
        version::check(abi, "it").with_context(no_policy)?;
        let Versioned { stored, .. } = serde_json::from_slice(&text).with_context(no_policy)?;
        Ok(Some(stored))
    }

    /// Writes what is to be kept beside what is; [`Pending::keep`] puts it in its place, once it is in
    /// force.
    ///
    /// # Errors
    /// If it cannot be written; nothing is changed then.
    pub fn prepare(&self, stored: &StoredPolicy) -> Result<Pending> {
        let abi = version::abi();
        let text = serde_json::to_vec(&Versioned { abi, stored })?;
        let directory = Directory::private(&self.run, Others::Read)?;
        Staged::write(directory, self.file.as_ref(), &text, PRIVATE_FILE).map(Pending)
    }

    /// Which writing of the file is there now; `None` if there is none.
    #[must_use]
    pub fn file_version(&self) -> Option<FileVersion> {
        let file = fs::metadata(&self.path).ok()?;
        Some(FileVersion {
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Removes what is kept.
    ///
    /// # Errors
    /// What unlink fails with; that it is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        let Some(directory) = Directory::trusted(&self.run, Others::Read)? else {
            return Ok(());
        };
        // The other one is there if whoever wrote it was killed.
        for file in [&self.file, &format!("{}{NEW_SUFFIX}", self.file)] {
            directory
                .remove(file.as_ref())
                .with_context(|| format!("cannot remove {}", self.run.join(file).display()))?;
        }
        Ok(())
    }
}

/// A policy that is written, and not yet in its place.
#[derive(Debug)]
#[must_use]
pub struct Pending(Staged);

impl Pending {
    /// Puts it in its place.
    ///
    /// # Errors
    /// As [`Staged::keep`].
    pub fn keep(self) -> Result<()> {
        self.0.keep()
    }
}

/// The network namespace of this thread: the inode of its file in /proc.
///
/// # Errors
/// If /proc does not tell.
pub fn netns() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    let file = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?;
    Ok(file.ino())
}

#[cfg(test)]
mod tests;
