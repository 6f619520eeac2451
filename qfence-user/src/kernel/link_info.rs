//! Asks the kernel for the cgroup of a pinned link, of which aya shows only id, program and type; and for the id of a
//! program that aya did not load.

use std::{ffi::c_long, io, os::fd::AsFd, path::Path};

use anyhow::{Context as _, Result};
use qfence_common::Hook;

use super::{
    by_path,
    syscall::{Attributes, bpf, number},
};

/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP: u32 = 3;

#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

// SAFETY: as in linux/bpf.h. The kernel writes `info_len` bytes at `info`, for which the functions
// below have room.
unsafe impl Attributes for GetInfo {
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    const COMMAND: c_long = 15;
}

/// `struct bpf_link_info` of a link to a cgroup.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    padding_after: u32,
}

const _: () = assert!(size_of::<LinkInfo>() == 32);

/// The begin of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

/// The id of a loaded program.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn id_of_program(program: &impl AsFd) -> io::Result<u32> {
    let mut info = ProgramInfo::default();
    let mut get = GetInfo {
        bpf_fd: number(program)?,
        info_len: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(&mut get)?;
    Ok(info.id)
}

/// The cgroups of the links of a fence that are pinned in a directory: the id for each link, or `None` if the cgroup
/// is gone (`bpf_cgroup_link_fill_link_info` in kernel/bpf/cgroup.c). A removed cgroup counts as existing as long as
/// sockets exist that were made in it (`cgroup_bpf_offline`).
///
/// # Errors
/// If a pin cannot be queried, or is no link to a cgroup. A missing pin is no error.
pub fn cgroups_of(directory: &Path) -> Result<Vec<Option<u64>>> {
    let mut cgroups = Vec::new();
    for hook in Hook::ALL.into_iter().chain(Hook::LSM) {
        let pin = directory.join(hook.name());
        match cgroup_of(&pin) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            cgroup => {
                let context = || format!("cannot query {}", pin.display());
                cgroups.push(cgroup.with_context(context)?);
            }
        }
    }
    Ok(cgroups)
}

/// The cgroup of the link that is pinned at `pin`.
fn cgroup_of(pin: &Path) -> io::Result<Option<u64>> {
    let link = by_path::open(pin)?;
    let mut info = LinkInfo::default();
    let mut get = GetInfo {
        bpf_fd: number(&link)?,
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(&mut get)?;
    if info.link_type != CGROUP {
        return Err(io::Error::other("it is no link to a cgroup"));
    }
    Ok((info.cgroup_id != 0).then_some(info.cgroup_id))
}
