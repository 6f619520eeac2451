//! Finds a cgroup by its id, anywhere in the hierarchy.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _},
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    libc::{self, c_int, c_uint},
    sys::stat::{fstat, fstatat},
};

/// `FILEID_KERNFS` in linux/exportfs.h: the file handle is a 64-bit id (`kernfs_fh_to_dentry` in fs/kernfs/mount.c).
const KERNFS: c_int = 0xfe;

/// `struct file_handle` with such an id.
#[repr(C)]
struct Handle {
    bytes: c_uint,
    kind: c_int,
    id: [u8; 8],
}

/// Whether a cgroup with this id exists. `hierarchy` is open in any mount of cgroup2: all mounts share one file
/// system, in which a handle finds a file wherever it is.
///
/// # Errors
/// Errors of open_by_handle_at(2): EPERM without CAP_DAC_READ_SEARCH in the initial user namespace. Also if the
/// kernel does not support such handles.
pub fn exists(hierarchy: &File, id: u64) -> Result<bool> {
    let own = fstat(hierarchy)?.st_ino;
    ensure!(
        find(hierarchy, own)?.is_some(),
        "this kernel does not find cgroups by their id"
    );
    Ok(find(hierarchy, id)?.is_some())
}

/// The path of the cgroup with this id, below the directory `place` of a cgroup. `None` if it does not exist any more, or is
/// not below `place`.
///
/// # Errors
/// As [`exists`].
pub fn below(place: &File, id: u64) -> Result<Option<PathBuf>> {
    let Some(found) = find(place, id)? else {
        return Ok(None);
    };
    let [found, place] = [path(&found)?, path(place)?];
    Ok(found.strip_prefix(place).ok().map(Path::to_owned))
}

/// The path of an open directory.
fn path(directory: &File) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn find(hierarchy: &File, id: u64) -> io::Result<Option<File>> {
    let mut handle = Handle {
        bytes: 8,
        kind: KERNFS,
        id: id.to_ne_bytes(),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // SAFETY: the kernel reads a `struct file_handle`, whose 8 bytes follow the two numbers, and writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            hierarchy.as_raw_fd(),
            std::ptr::from_mut(&mut handle),
            flags.bits(),
        )
    };
    let fd = match Errno::result(fd) {
        Ok(fd) => c_int::try_from(fd).map_err(io::Error::other)?,
        Err(Errno::ESTALE | Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    let directory = unsafe { File::from_raw_fd(fd) };
    // Some kernels still open a removed cgroup while a process has it open. It has no files then.
    match fstatat(&directory, "cgroup.procs", AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(Some(directory)),
        Err(Errno::ENOENT | Errno::ENODEV | Errno::ESTALE) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nothing_is_found_by_an_id_does_not_mean_that_it_is_gone() {
        let proc = File::open("/proc").unwrap();
        assert!(exists(&proc, 1).is_err());
    }
}
