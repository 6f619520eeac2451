//! Makes the mounts of the command's namespace read-only, except at what the command may change.

use std::{
    env,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, open},
    libc,
    sys::stat::{Mode, fstat},
    unistd::chdir,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{
    Files,
    rules::{Right, Rule},
};

use crate::launch::namespace;

/// The directory of POSIX shared memory (shm_overview(7)).
pub(super) const SHARED_MEMORY: &str = "/dev/shm";

/// `MOUNT_ATTR_RDONLY` of linux/mount.h.
const READ_ONLY: u64 = 1;

impl Files {
    /// Makes all mounts of this thread's mount namespace read-only, except at what the command may change. The namespace
    /// must be the command's own.
    ///
    /// # Errors
    /// If the kernel does not do that (Linux 5.12 does), or a granted path has changed meanwhile.
    pub(in crate::launch) fn make_rest_read_only(&self) -> Result<()> {
        let directory = env::current_dir();
        // A mount that the host makes later would be writable.
        namespace::part().context("cannot part from the host's mounts")?;
        // Copies keep the flags of their mounts: what is read-only on the host stays so.
        let mut trees: Vec<(&Rule, OwnedFd, OwnedFd)> = Vec::new();
        for rule in self.rules.iter().filter(|rule| is_mounted(rule)) {
            if self.shared_memory.is_some() && rule.path == Path::new(SHARED_MEMORY) {
                // It gets the command's own, below.
                continue;
            }
            let (place, tree) = copy(rule)
                .with_context(|| format!("cannot keep {} writable", rule.path.display()))?;
            trees.push((rule, place, tree));
        }
        set_read_only(Path::new("/")).context("cannot make the mounts read-only")?;
        for (rule, place, tree) in trees {
            attach(&tree, &place)
                .with_context(|| format!("cannot mount {}", rule.path.display()))?;
        }
        if let Some(shared) = &self.shared_memory {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let place = open(SHARED_MEMORY, flags, Mode::empty())?;
            attach(shared, &place).context("cannot mount the command's /dev/shm")?;
        }
        // The working directory is still the one below the new mounts.
        if let Ok(directory) = directory {
            let describe = || format!("cannot enter {} again", directory.display());
            chdir(&directory).with_context(describe)?;
        }
        Ok(())
    }
}

/// Whether the command changes what is at a rule's path, and the path is a mount's. Devices can be written on read-only
/// mounts.
fn is_mounted(rule: &Rule) -> bool {
    // A standard stream is on its own mount already.
    let is_changed = matches!(rule.right, Right::Change | Right::ChangeOwn | Right::Make);
    is_changed && !rule.is_device()
}

/// Copies the mounts at a rule's path and below. Returns the path itself, opened in this namespace, and the copy.
fn copy(rule: &Rule) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let place = open(&rule.path, flags, Mode::empty())?;
    let of = |file: &OwnedFd| fstat(file).map(|found| (found.st_dev, found.st_ino));
    ensure!(
        of(&place)? == of(&rule.file)?,
        "it is another one than before"
    );
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&place, "", flags)?;
    Ok((place, tree))
}

fn attach(tree: &impl AsFd, place: &impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags)
}

/// Makes a file system in memory, with this mode of its root directory. It is mounted nowhere yet.
///
/// # Errors
/// The errors of fsopen(2) and the calls after it.
pub(super) fn temporary(mode: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", mode)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes the mount at a path read-only, and all mounts below it.
fn set_read_only(path: &Path) -> nix::Result<()> {
    let path =
        std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    // struct mount_attr of linux/mount.h: attributes to set and to clear, propagation, user namespace.
    let attributes: [u64; 4] = [READ_ONLY, 0, 0, 0];
    // SAFETY: the path ends in zero, and the kernel reads as many bytes as the last argument says.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            AT_FDCWD.as_raw_fd(),
            path.as_ptr(),
            libc::AT_RECURSIVE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(set).map(drop)
}
