//! The directories in bpffs in which the links and maps of fences are pinned.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use qfence_common::abi;

use super::{
    bpffs::{MakeError, check_parent, make, make_parent, mount_bpffs},
    local_in,
};
use crate::base::{
    files::{
        directory::{Directory, DirectoryError, Others},
        entries,
    },
    name::Names,
    version,
};

/// The directory in bpffs that has the directories of all fences.
const PARENT: &str = "qfence";

/// The pins of all fences.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
}

impl Pins {
    /// The pins in the bpffs at the mount point `bpffs`, whether it is mounted or not.
    #[must_use]
    pub fn new(bpffs: &Path) -> Self {
        Self {
            bpffs: bpffs.to_owned(),
        }
    }

    /// Mounts bpffs if it is not mounted, and makes the parent directory. Returns whether bpffs was mounted.
    ///
    /// # Errors
    /// If either fails.
    pub fn prepare(&self) -> Result<bool> {
        let mounted = statfs(&self.bpffs).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
        if !mounted {
            mount_bpffs(&self.bpffs)?;
        }
        make_parent(&self.parent())?;
        Ok(!mounted)
    }

    /// The mount point of bpffs.
    pub(super) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Whether the second layer for frames is whole in the caller's network namespace.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn has_second_layer(&self) -> Result<bool> {
        local_in::is_whole(&self.bpffs, None)
    }

    /// The directory that has the directories of all fences.
    fn parent(&self) -> PathBuf {
        self.bpffs.join(PARENT)
    }

    /// Checks that the directory of all fences, if it exists, is root's, and that others cannot replace it.
    ///
    /// # Errors
    /// If it is not. Nothing in it is used then.
    pub fn check(&self) -> Result<(), DirectoryError> {
        check_parent(&self.parent())?;
        Ok(())
    }

    /// The directory of one fence.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.parent().join(encode(name))
    }

    /// Makes the directory of one fence, and in it that of the maps. Its name shows the version before anything is
    /// pinned.
    ///
    /// # Errors
    /// Errors of mkdir. Nothing is left then.
    pub fn create(&self, name: &str) -> Result<PathBuf, MakeError> {
        self.check()?;
        let directory = self.directory(name);
        make(&directory)?;
        make(&of_maps(&directory)).inspect_err(|_| {
            // It is empty, and the first error is reported.
            let _ = fs::remove_dir(&directory);
        })?;
        Ok(directory)
    }

    /// The version of the qfence that made the directory of a fence. `None` if the directory does not exist or is
    /// empty.
    ///
    /// # Errors
    /// If it cannot be read, or its version cannot be parsed.
    pub fn version(&self, name: &str) -> Result<Option<u32>> {
        version_of(&self.directory(name))
    }

    /// The names of the fences that have a directory, and the other entries beside them.
    ///
    /// # Errors
    /// Errors of reading. Without a directory there are no names.
    pub fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        for entry in entries(&self.parent())? {
            let file = entry.file_name();
            // qfence encodes names in one way only; another spelling is not qfence's.
            let name = file.to_str().map(|file| (file, decode(file)));
            let name = name.filter(|(file, name)| encode(name) == *file);
            names.add(name.as_ref().map(|(_, name)| name.as_str()), &entry.path());
        }
        Ok(names)
    }

    /// Removes the pins of one fence. Its links go too, unless a process has them open.
    ///
    /// # Errors
    /// Errors of unlink; missing pins are no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.check()?;
        let directory = self.directory(name);
        // bpffs acts like other file systems here.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Opens the directory of one fence, `pins`. Only root may be able to open it: a user who can open it can lock it.
///
/// # Errors
/// If it, or a directory above it, is another user's or a link.
pub fn open(pins: &Path) -> Result<File> {
    check_parent(pins.parent().unwrap_or(pins))?;
    let directory = Directory::private(pins, Others::Nothing)?;
    Ok(directory.as_fd().try_clone_to_owned()?.into())
}

/// The directory of the maps of this program's version, in that of a fence.
#[must_use]
pub fn of_maps(pins: &Path) -> PathBuf {
    pins.join(format!("{}{}", abi::MAPS_DIRECTORY, version::abi()))
}

/// The version of a fence's directory. If there are several, a version other than this program's is returned.
pub(super) fn version_of(pins: &Path) -> Result<Option<u32>> {
    let context = || format!("cannot read the version of {}", pins.display());
    let mut found = None;
    for entry in entries(pins).with_context(context)? {
        let name = entry.file_name();
        let number = match name.to_str() {
            Some(abi::UNVERSIONED_MAPS_DIRECTORY) => "0",
            Some(name) => match name.strip_prefix(abi::MAPS_DIRECTORY) {
                Some(number) => number,
                None => continue,
            },
            None => continue,
        };
        let number: u32 = number.parse().with_context(context)?;
        if found.is_none() || number != version::abi() {
            found = Some(number);
        }
    }
    Ok(found)
}

/// bpffs reserves names with dots (`bpf_lookup` in kernel/bpf/inode.c returns EPERM).
fn encode(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2E")
}

fn decode(name: &str) -> String {
    name.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_name_with_dots_survives() {
        for name in ["vm1", "my.vm", "100%", "a%2Eb", "..."] {
            assert!(!encode(name).contains('.'));
            assert_eq!(decode(&encode(name)), name);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        assert_eq!(pins.names().unwrap(), Names::default());
        let others = ["%2E%2E", "%2E", "100%", "%252E%252E%41", "a.b"];
        for file in others.into_iter().chain(["my%2Evm", "%252E%252E"]) {
            fs::create_dir_all(dir.path().join(PARENT).join(file)).unwrap();
        }
        let mut names = pins.names().unwrap();
        names.fences.sort();
        assert_eq!(names.fences, ["%2E%2E", "my.vm"]);
        assert_eq!(names.others.len(), others.len(), "{names:?}");
    }

    #[test]
    fn a_directory_of_somebody_elses_making_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        let parent = dir.path().join(PARENT);
        pins.check().unwrap();
        std::os::unix::fs::symlink(dir.path(), &parent).unwrap();
        assert!(pins.check().is_err());
        fs::remove_file(&parent).unwrap();
        fs::create_dir(&parent).unwrap();
        let directory = pins.create("vm1").unwrap();
        open(&directory).unwrap();
        for (path, mode) in [(&parent, 0o777), (&directory, 0o755)] {
            let set = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            set(mode);
            assert!(open(&directory).is_err(), "{}", path.display());
            set(0o700);
            open(&directory).unwrap();
        }
    }

    /// The kernel gives the root of bpffs a mode in which all users can add to it.
    #[test]
    fn what_is_left_is_looked_after_where_all_may_add_to_bpffs() {
        let dir = tempfile::tempdir().unwrap();
        let bpffs = dir.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        fs::set_permissions(&bpffs, fs::Permissions::from_mode(0o1777)).unwrap();
        let pins = Pins::new(&bpffs);
        assert!(pins.clear_ended().unwrap().is_empty());
        // A directory without links judges nothing.
        make_parent(&bpffs.join("qfence-ended")).unwrap();
        let kept = bpffs.join("qfence-ended/7");
        fs::create_dir(&kept).unwrap();
        assert!(pins.clear_ended().unwrap().is_empty());
        assert!(!kept.exists());
        fs::set_permissions(
            bpffs.join("qfence-ended"),
            fs::Permissions::from_mode(0o777),
        )
        .unwrap();
        assert!(pins.clear_ended().is_err());
    }
}
