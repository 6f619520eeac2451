//! Makes, opens and removes a cgroup; `hierarchy.rs` finds the hierarchy, and `processes.rs` lists and ends
//! processes.
//!
//! cgroups-rs sets resource limits (`limits.rs`). It does not make cgroups here: its create succeeds for an existing
//! cgroup, so it cannot claim a name.

mod processes;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::errno::Errno;

/// The mode of directories. All users may pass through, so that a process can read its own limits. Only root may open
/// them: a user who can open a directory can lock and mark it. A fenced process must not look like its supervisor, or
/// block the making of fences.
const MODE: u32 = 0o711;

/// One cgroup.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

/// Open files with which a process enters a cgroup.
#[derive(Debug)]
pub struct Entry {
    /// Its directory.
    pub directory: File,
    /// Its `cgroup.procs`, open for writing. A process that cannot be made in the cgroup moves there with it.
    pub procs: File,
}

impl Cgroup {
    /// The cgroup at a directory, whether it exists or not.
    #[must_use]
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes it. An existing one is an error.
    ///
    /// # Errors
    /// Errors of mkdir.
    pub fn create(&self) -> io::Result<()> {
        make_directory(&self.directory)
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// Opens its directory, to which programs are attached.
    ///
    /// # Errors
    /// Errors of open.
    pub fn open(&self) -> Result<File> {
        File::open(&self.directory)
            .with_context(|| format!("cannot open the cgroup {}", self.directory.display()))
    }

    /// Opens the files with which a process enters it.
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

    /// Its id, which is unique until the next boot; `None` if it is gone.
    ///
    /// # Errors
    /// Errors of reading.
    pub fn id(&self) -> io::Result<Option<u64>> {
        match fs::metadata(&self.directory) {
            Ok(metadata) => Ok(Some(metadata.ino())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its id and those of the cgroups below, as the kernel uses them: the inodes of the directories (`cgroup_id` in
    /// include/linux/cgroup.h).
    ///
    /// # Errors
    /// Errors of reading. A cgroup that is gone has no ids.
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

    /// Removes it and the cgroups below. All must be empty.
    ///
    /// # Errors
    /// Errors of rmdir; a missing cgroup is no error.
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

    /// Its directory and those below, parents first.
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

/// Makes a directory with [`MODE`], independent of the umask.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(MODE).create(directory)?;
    set_mode(directory)
}

/// Gives a directory [`MODE`].
pub(crate) fn set_mode(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(MODE))
}

/// The directories in a directory, such as the cgroups in a cgroup.
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

/// Whether an error shows that a cgroup is gone. ENODEV is the error of an open file of a removed cgroup.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}
