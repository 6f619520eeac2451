//! Links of programs for devices, socket options and security modules. aya 0.14 makes them, but offers no `FdLink` for them,
//! which pinning needs.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, OwnedFd},
};

use qfence_common::Hook;

use super::syscall::{Attributes, bpf_fd, number};

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for LinkCreate {
    /// `BPF_LINK_CREATE`.
    const COMMAND: c_long = 28;
}

/// Attaches a loaded program to a cgroup, as long as the link is open or pinned.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn attach(program: impl AsFd, cgroup: impl AsFd, hook: Hook) -> io::Result<OwnedFd> {
    bpf_fd(&mut LinkCreate {
        prog_fd: number(&program)?,
        target_fd: number(&cgroup)?,
        attach_type: hook.row().attach_type,
        flags: 0,
    })
}
