//! Owns cgroups, with `hierarchy.rs`: makes, opens and removes one; `processes.rs` lists and ends what runs in one.
//!
//! cgroups-rs sets resource limits (`limits.rs`). Making a cgroup is done here: the crate's create
//! succeeds where the cgroup exists already, so that it cannot claim a name.

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

/// The mode of the directories: all may pass, so that a process can read its own limits, and root
/// alone may open them. Whoever can open a directory can lock and mark it, and a fenced process must not be
/// able to pass for its supervisor, or to keep others from making fences.
const MODE: u32 = 0o711;

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

/// Whether a cgroup is gone. ENODEV is what an open file of a cgroup says once the cgroup is gone.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}
