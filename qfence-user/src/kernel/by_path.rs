//! Pins and opens objects of bpf(2) by path, where aya has no function for it.

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::syscall::{Attributes, bpf, bpf_fd, number};

/// `BPF_OBJ_PIN`.
const PIN: c_long = 6;

/// `BPF_OBJ_GET`.
const GET: c_long = 7;

/// The fields of `union bpf_attr` for both.
#[repr(C)]
struct ByPath<const COMMAND: c_long> {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

// SAFETY: as in linux/bpf.h for these two commands, and only these are used. The kernel reads a string at `pathname`,
// which both functions provide.
unsafe impl<const COMMAND: c_long> Attributes for ByPath<COMMAND> {
    const COMMAND: c_long = COMMAND;
}

/// Pins an object at a path in bpffs.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(&mut ByPath::<PIN> {
        pathname: path.as_ptr() as u64,
        bpf_fd: number(&object)?,
        file_flags: 0,
    })
    .map(drop)
}

/// Opens the object that is pinned at a path.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf_fd(&mut ByPath::<GET> {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    })
}
