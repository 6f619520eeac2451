//! Owns bpffs: the directory in which a fence's links are pinned.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// The directory in bpffs that all fences are in.
const PARENT: &str = "qfence";

/// The pins of all fences.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
}

impl Pins {
    /// The pins in the bpffs that is, or is to be, mounted at `bpffs`.
    #[must_use]
    pub fn new(bpffs: &Path) -> Self {
        Self {
            bpffs: bpffs.to_owned(),
        }
    }

    /// Mounts bpffs where it is not, and makes the parent directory; whether it had to be mounted.
    ///
    /// # Errors
    /// If either cannot be done.
    pub fn prepare(&self) -> Result<bool> {
        let mounted = statfs(&self.bpffs).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
        if !mounted {
            mount_bpffs(&self.bpffs)?;
        }
        let parent = self.bpffs.join(PARENT);
        match fs::DirBuilder::new().mode(0o700).create(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot make {}", parent.display()))
            }
            _ => Ok(!mounted),
        }
    }

    /// The directory of one fence.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.bpffs.join(PARENT).join(encode(name))
    }

    /// Makes the directory of one fence.
    ///
    /// # Errors
    /// What mkdir fails with.
    pub fn create(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// The names of the fences that have a directory.
    ///
    /// # Errors
    /// What reading fails with; where nothing was ever pinned there is none.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.bpffs.join(PARENT)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().to_str().map(decode));
        }
        Ok(names)
    }

    /// Removes the pins of one fence and with them, unless a process holds them too, its links.
    ///
    /// # Errors
    /// What unlink fails with; that they are gone already is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let directory = self.directory(name);
        // bpffs is a file system like others: files in a directory.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Mounts bpffs at `point`, for root alone.
///
/// # Errors
/// What mount fails with.
pub(crate) fn mount_bpffs(point: &Path) -> Result<()> {
    mount(
        Some("bpf"),
        point,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| {
        format!(
            "no bpffs is mounted at {}, and mounting it failed",
            point.display()
        )
    })
}

/// bpffs keeps names with dots for itself (`bpf_lookup` in kernel/bpf/inode.c says EPERM).
fn encode(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2E")
}

fn decode(name: &str) -> String {
    name.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_dots_survives() {
        for name in ["vm1", "my.vm", "100%", "a%2Eb", "..."] {
            assert!(!encode(name).contains('.'));
            assert_eq!(decode(&encode(name)), name);
        }
    }
}
