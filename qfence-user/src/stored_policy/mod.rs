//! The stored policy of a fence: a file under /run/qfence. Its supervisor and other commands compile the policy from
//! it again.

pub mod resolved_names;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        files::{
            PRIVATE_FILE,
            directory::{Directory, Others},
            staged::{NEW_SUFFIX, Staged, StagedError},
        },
        locks::{self, Exclusive},
        process::looks::Looks,
        version,
    },
    kernel::pins,
    policy::{Policy, Prefix, Sets, hostset::WorkloadAddresses},
};

/// The suffix of the files.
const SUFFIX: &str = ".policy";

/// The input from which the policy in force was compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// The rules.
    pub policy: Policy,
    /// The members of the sets.
    pub sets: Sets,
    /// The network namespace of the addresses in `sets`: the inode of its file in /proc.
    pub netns: u64,
    /// The file of the nameservers in `sets`; `None` for that of the host, as in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<PathBuf>,
    /// The number of policies that the fence has had, including this one.
    pub generation: u64,
    /// The names of the fence's network devices: the host's addresses there are in the set `dns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The network of the workload that the fence is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<StoredWorkload>,
}

/// The network of a workload, as it was when the policy was compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWorkload {
    /// The addresses of its network namespaces.
    pub addresses: WorkloadAddresses,
    /// The nameservers of its resolv.conf, if that is not this host's.
    pub nameservers: Option<BTreeSet<Prefix>>,
    /// Whether its services at its own addresses are allowed.
    pub pod_loopback: bool,
}

impl StoredWorkload {
    /// Adds its part to the members of the sets, which are those of this host.
    pub fn add_to(&self, sets: &mut Sets) {
        if self.pod_loopback {
            sets.pod = self.addresses.pod(&sets.host);
        }
        sets.host.extend(&self.addresses.host);
        sets.many.extend(&self.addresses.many);
    }
}

/// The content of the file: the policy, and the version of its writer.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    abi: u32,
    stored: T,
}

/// The part of the content that all versions have.
#[derive(Deserialize)]
struct Version {
    /// 0 in files from before there were versions.
    #[serde(default)]
    abi: u32,
}

/// The file of one fence's policy.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    run: PathBuf,
    file: String,
    path: PathBuf,
    pins: PathBuf,
}

/// Why a stored policy cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no policy.
    #[error("{} is no policy of this version of qfence", path.display())]
    NotAPolicy {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Another version of qfence wrote it.
    #[error("{} is no policy of this version of qfence", path.display())]
    OtherVersion {
        /// Its path.
        path: PathBuf,
        /// The version.
        source: version::OtherVersion,
    },
}

/// Keeps others from changing the policy of a fence, as long as this lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] Exclusive);

/// A fence whose policy is not locked yet.
#[derive(Debug)]
pub struct Unlocked(fs::File);

/// Identifies one writing of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    inode: u64,
    changed: (i64, i64),
}

impl PolicyFile {
    /// The file of the fence `name`. `run` is the directory of descriptions, `pins` that of its links.
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

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the lock under which the policy is changed.
    ///
    /// # Errors
    /// If there is nothing to lock, because the fence is gone, or it went meanwhile. Or
    /// [`Interrupted`](crate::base::interruptible::Interrupted).
    pub fn lock(&self) -> Result<Lock> {
        self.lock_on(self.unlocked()?)
    }

    /// Like [`PolicyFile::lock`], without waiting; `None` if another process has the lock.
    ///
    /// # Errors
    /// As [`PolicyFile::lock`].
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let Unlocked(directory) = self.unlocked()?;
        let lock = locks::try_exclusive_on(directory, &self.pins)?.ok();
        lock.map(|lock| self.in_place(lock)).transpose()
    }

    /// The fence of now, for [`PolicyFile::lock_on`].
    ///
    /// # Errors
    /// As [`PolicyFile::lock`].
    pub fn unlocked(&self) -> Result<Unlocked> {
        let context = || format!("cannot lock {}", self.pins.display());
        pins::open(&self.pins).map(Unlocked).with_context(context)
    }

    /// Like [`PolicyFile::lock`]. What was opened since [`PolicyFile::unlocked`] is of the fence that is locked.
    ///
    /// # Errors
    /// As [`PolicyFile::lock`]; also if another fence has the name by now.
    pub fn lock_on(&self, Unlocked(directory): Unlocked) -> Result<Lock> {
        locks::exclusive_on(directory, &self.pins).and_then(|lock| self.in_place(lock))
    }

    /// A lock, if its directory is still that of the fence.
    fn in_place(&self, lock: Exclusive) -> Result<Lock> {
        let of = |found: fs::Metadata| (found.dev(), found.ino());
        let locked = of(lock.metadata().context("cannot query a lock")?);
        let is_same = fs::metadata(&self.pins).is_ok_and(|found| of(found) == locked);
        ensure!(
            is_same,
            "the fence with {} has ended, or was replaced by another one, meanwhile",
            self.pins.display()
        );
        Ok(Lock(lock))
    }

    /// The process that has the lock, and the locked directory, in words.
    #[must_use]
    pub fn holder(&self) -> String {
        let holder = locks::holder_of(&self.pins);
        let holder = holder.map_or_else(
            || "another process".to_owned(),
            |pid| Looks::default().name(pid),
        );
        format!("{holder} has the lock on {}", self.pins.display())
    }

    /// The stored policy; `None` before the first one.
    ///
    /// # Errors
    /// If the file cannot be read or parsed, or another version wrote it.
    pub fn read(&self) -> Result<Option<StoredPolicy>, ReadError> {
        let path = || self.path.clone();
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| ReadError::Read {
                path: path(),
                source,
            })?,
        };
        let no_policy = |source| ReadError::NotAPolicy {
            path: path(),
            source,
        };
        let Version { abi } = serde_json::from_slice(&text).map_err(no_policy)?;
        version::check(abi, "it").map_err(|source| ReadError::OtherVersion {
            path: path(),
            source,
        })?;
        let Versioned { stored, .. } = serde_json::from_slice(&text).map_err(no_policy)?;
        Ok(Some(stored))
    }

    /// Writes a policy beside the current one. [`Pending::keep`] renames it into place, after it is in force.
    ///
    /// # Errors
    /// If it cannot be written. The stored policy is unchanged then.
    pub fn prepare(&self, stored: &StoredPolicy) -> Result<Pending> {
        let abi = version::abi();
        let text = serde_json::to_vec(&Versioned { abi, stored })?;
        let directory = Directory::private(&self.run, Others::Read)?;
        let staged = Staged::write(directory, self.file.as_ref(), &text, PRIVATE_FILE)?;
        Ok(Pending(staged))
    }

    /// The current writing of the file; `None` if it does not exist.
    #[must_use]
    pub fn file_version(&self) -> Option<FileVersion> {
        let file = fs::metadata(&self.path).ok()?;
        Some(FileVersion {
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Removes the stored policy.
    ///
    /// # Errors
    /// Errors of unlink; a missing file is no error.
    pub fn remove(&self) -> Result<()> {
        remove(&self.run, &self.file)
    }
}

/// Removes a file of a directory, and what a killed writer left of it.
fn remove(run: &Path, file: &str) -> Result<()> {
    let Some(directory) = Directory::trusted(run, Others::Read)? else {
        return Ok(());
    };
    for file in [file, &format!("{file}{NEW_SUFFIX}")] {
        directory
            .remove(file.as_ref())
            .with_context(|| format!("cannot remove {}", run.join(file).display()))?;
    }
    Ok(())
}

/// A policy that is written, but not in its place yet.
#[derive(Debug)]
#[must_use]
pub struct Pending(Staged);

impl Pending {
    /// Renames it into place.
    ///
    /// # Errors
    /// As [`Staged::keep`].
    pub fn keep(self) -> Result<(), StagedError> {
        self.0.keep()
    }
}

/// The network namespace of this thread: the inode of its file in /proc.
///
/// # Errors
/// If /proc cannot be read.
pub fn netns() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    let file = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?;
    Ok(file.ino())
}

#[cfg(test)]
mod tests;
