//! Asks the kernel for the cgroup or the device of a link, of which aya shows only id, program and type; and for the id of
//! a program that aya did not load. Detaches links.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use qfence_common::Hook;

use super::{
    by_path,
    syscall::{Attributes, bpf, bpf_fd, number},
};

/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP: u32 = 3;

/// `BPF_LINK_TYPE_NETFILTER`.
const NETFILTER: u32 = 10;

/// `BPF_LINK_TYPE_TCX`.
const TCX: u32 = 11;

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

/// `struct bpf_link_info` of a link to a device.
#[repr(C)]
#[derive(Default)]
struct DeviceLinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

const _: () = assert!(size_of::<DeviceLinkInfo>() == 24);

/// `struct bpf_link_info` of a link to a hook of netfilter.
#[repr(C)]
#[derive(Default)]
struct NetfilterLinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    pf: u32,
    hooknum: u32,
    priority: i32,
    flags: u32,
}

const _: () = assert!(size_of::<NetfilterLinkInfo>() == 32);

/// The argument of `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for ById {
    /// `BPF_PROG_GET_FD_BY_ID`.
    const COMMAND: c_long = 13;
}

/// The argument of `BPF_LINK_DETACH`.
#[repr(C)]
struct Detach {
    link_fd: u32,
}

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for Detach {
    /// `BPF_LINK_DETACH`.
    const COMMAND: c_long = 34;
}

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

/// A link to a network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceLink {
    /// Its id.
    pub(super) id: u32,
    /// The index of the device in the network namespace that it is in now; 0 if the device is gone.
    pub(super) index: u32,
    /// The direction.
    pub(super) attach_type: u32,
}

/// The device of a link.
///
/// # Errors
/// If it cannot be queried, or is no link to a device.
pub(super) fn of_device(link: &impl AsFd) -> io::Result<DeviceLink> {
    let mut info = DeviceLinkInfo::default();
    let mut get = GetInfo {
        bpf_fd: number(link)?,
        info_len: u32::try_from(size_of::<DeviceLinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(&mut get)?;
    if info.link_type != TCX {
        return Err(io::Error::other("it is no link to a network device"));
    }
    Ok(DeviceLink {
        id: info.id,
        index: info.ifindex,
        attach_type: info.attach_type,
    })
}

/// A link to a hook of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetfilterLink {
    /// The id of its program.
    pub(super) program: u32,
    /// The family, `NFPROTO_*`.
    pub(super) family: u32,
    /// Its priority in the hook.
    pub(super) priority: i32,
}

/// The hook of a link, as it was made: whether the link was detached since is not told.
///
/// # Errors
/// If it cannot be queried, or is no link to a hook of netfilter.
pub(super) fn of_netfilter(link: &impl AsFd) -> io::Result<NetfilterLink> {
    let mut info = NetfilterLinkInfo::default();
    let mut get = GetInfo {
        bpf_fd: number(link)?,
        info_len: u32::try_from(size_of::<NetfilterLinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(&mut get)?;
    if info.link_type != NETFILTER {
        return Err(io::Error::other("it is no link to a hook of netfilter"));
    }
    Ok(NetfilterLink {
        program: info.prog_id,
        family: info.pf,
        priority: info.priority,
    })
}

/// Opens a loaded program by its id.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(&mut ById {
        prog_id: id,
        next_id: 0,
        open_flags: 0,
    })
}

/// Detaches a link at once, although other processes may have it open.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn detach(link: &impl AsFd) -> io::Result<()> {
    let mut detach = Detach {
        link_fd: number(link)?,
    };
    bpf(&mut detach).map(drop)
}

/// What a link to a cgroup attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// The id of the program.
    pub(super) program: u32,
    /// Its hook, of `enum bpf_attach_type`.
    pub(super) attach_type: u32,
    /// The id of the cgroup, as of [`CgroupLink::cgroup`].
    pub(super) cgroup: Option<u64>,
}

/// A link to a cgroup that is pinned.
#[derive(Debug)]
pub(super) struct CgroupLink {
    pin: PathBuf,
    link: OwnedFd,
}

impl CgroupLink {
    /// The id of its cgroup; `None` if that is gone (`bpf_cgroup_link_fill_link_info` in kernel/bpf/cgroup.c). A removed
    /// cgroup counts as existing as long as sockets exist that were made in it (`cgroup_bpf_offline`).
    ///
    /// # Errors
    /// If it cannot be queried, or is no link to a cgroup.
    pub(super) fn cgroup(&self) -> Result<Option<u64>> {
        self.attached().map(|attached| attached.cgroup)
    }

    /// What it attaches, and where.
    ///
    /// # Errors
    /// As [`CgroupLink::cgroup`].
    pub(super) fn attached(&self) -> Result<Attached> {
        let context = || format!("cannot query {}", self.pin.display());
        attached(&self.link).with_context(context)
    }
}

/// Opens the links of a fence that are pinned in a directory.
///
/// # Errors
/// If one cannot be opened. A missing pin is no error.
pub(super) fn open_all(directory: &Path) -> Result<Vec<CgroupLink>> {
    let mut links = Vec::new();
    for hook in Hook::ALL.into_iter().chain(Hook::LSM) {
        let pin = directory.join(hook.name());
        match by_path::open(&pin) {
            Ok(link) => links.push(CgroupLink { pin, link }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot query {}", pin.display()));
            }
        }
    }
    Ok(links)
}

/// The cgroups of the links of a fence that are pinned in a directory: the id for each link, as by [`CgroupLink::cgroup`].
///
/// # Errors
/// If a pin cannot be queried, or is no link to a cgroup. A missing pin is no error.
pub fn cgroups_of(directory: &Path) -> Result<Vec<Option<u64>>> {
    open_all(directory)?
        .iter()
        .map(CgroupLink::cgroup)
        .collect()
}

/// What a link attaches.
fn attached(link: &impl AsFd) -> io::Result<Attached> {
    let mut info = LinkInfo::default();
    let mut get = GetInfo {
        bpf_fd: number(link)?,
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(&mut get)?;
    if info.link_type != CGROUP {
        return Err(io::Error::other("it is no link to a cgroup"));
    }
    Ok(Attached {
        program: info.prog_id,
        attach_type: info.attach_type,
        cgroup: (info.cgroup_id != 0).then_some(info.cgroup_id),
    })
}
