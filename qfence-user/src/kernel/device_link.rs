//! The link of the device program. aya 0.14 makes one and hands it to nobody: its `CgroupDeviceLink`,
//! alone of the cgroup links, is not to be had as an `FdLink`, which is what can be pinned. So the two
//! calls to bpf(2) are made here.

use std::{
    ffi::{CString, c_long},
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::libc;

// include/uapi/linux/bpf.h
const BPF_OBJ_PIN: c_long = 6;
const BPF_LINK_CREATE: c_long = 28;
const BPF_CGROUP_DEVICE: u32 = 6;

/// The fields of `union bpf_attr` for `BPF_LINK_CREATE`, as far as they are used; the kernel takes the
/// rest as zero.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Those for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Attaches a loaded device program to a cgroup, for as long as the link is held or pinned.
///
/// # Errors
/// What bpf(2) fails with.
pub(super) fn attach(program: impl AsFd, cgroup: impl AsFd) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        prog_fd: number(&program)?,
        target_fd: number(&cgroup)?,
        attach_type: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &attributes)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a link at a path in bpffs.
///
/// # Errors
/// What bpf(2) fails with.
pub(super) fn pin(link: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjPin {
        pathname: path.as_ptr() as u64,
        bpf_fd: number(&link)?,
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attributes).map(drop)
}

fn number(fd: &impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<c_long> {
    // SAFETY: the kernel reads `size` bytes of the attributes, which are a prefix of its union for
    // this command; a path in them outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
