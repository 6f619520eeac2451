//! Links of device and socket option programs. aya 0.14 makes such and hands them to nobody: alone of
//! the cgroup links, they are not to be had as an `FdLink`, which is what can be pinned.

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use qfence_common::Hook;

use super::syscall::{Attributes, bpf, bpf_fd, number};

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: as in linux/bpf.h; there are no addresses.
unsafe impl Attributes for LinkCreate {
    /// `BPF_LINK_CREATE`.
    const COMMAND: c_long = 28;
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

// SAFETY: as in linux/bpf.h. The kernel reads a string at `pathname`: `pin` has one there.
unsafe impl Attributes for ObjPin {
    /// `BPF_OBJ_PIN`.
    const COMMAND: c_long = 6;
}

/// Attaches a loaded program to a cgroup, for as long as the link is held or pinned.
///
/// # Errors
/// What bpf(2) fails with.
pub(super) fn attach(program: impl AsFd, cgroup: impl AsFd, hook: Hook) -> io::Result<OwnedFd> {
    bpf_fd(&mut LinkCreate {
        prog_fd: number(&program)?,
        target_fd: number(&cgroup)?,
        attach_type: hook.row().attach_type,
        flags: 0,
    })
}

/// Pins a link at a path in bpffs.
///
/// # Errors
/// What bpf(2) fails with.
pub(super) fn pin(link: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(&mut ObjPin {
        pathname: path.as_ptr() as u64,
        bpf_fd: number(&link)?,
        file_flags: 0,
    })
    .map(drop)
}
