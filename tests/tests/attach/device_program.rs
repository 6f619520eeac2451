//! The device program of an engine, attached as libvirt and runc do it: by bpf(2) without a link, which aya cannot do.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::libc;

/// Commands of bpf(2) (`enum bpf_cmd` in linux/bpf.h).
pub(super) const PROG_LOAD: u32 = 5;
pub(super) const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const TYPE: u32 = 15;
const DEVICE: u32 = 6;

/// `BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI` and `BPF_F_REPLACE`.
pub(super) const OVERRIDE: u32 = 1;
pub(super) const MULTI: u32 = 2;
pub(super) const REPLACE: u32 = 4;

/// The most programs of a cgroup here.
const MOST: usize = 16;

/// Instructions that refuse devices with the minor number 5, such as /dev/zero, and no other: load the word at 8 of the context
/// (`struct bpf_cgroup_dev_ctx`); 1; unless it is 5, skip; 0; return.
const REFUSES_ZERO: [u64; 5] = [
    0x0000_0000_0008_1261,
    0x0000_0001_0000_00b7,
    0x0000_0005_0001_0255,
    0x0000_0000_0000_00b7,
    0x0000_0000_0000_0095,
];

/// A device program.
#[derive(Debug)]
pub(super) struct DeviceProgram(OwnedFd);

impl DeviceProgram {
    /// Loads one that refuses /dev/zero.
    pub(super) fn load() -> Result<Self> {
        let license = c"GPL";
        // prog_type, insn_cnt, insns, license, log_level and log_size, log_buf.
        let attributes: [u64; 5] = [
            u64::from(TYPE) | (u64::try_from(REFUSES_ZERO.len())? << 32),
            u64::try_from(REFUSES_ZERO.as_ptr().addr())?,
            u64::try_from(license.as_ptr().addr())?,
            0,
            0,
        ];
        let descriptor = bpf(PROG_LOAD, &attributes).context("load a device program")?;
        // SAFETY: the kernel has just made it, and nothing else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Attaches it to a cgroup.
    pub(super) fn attach(&self, cgroup: &Path, flags: u32) -> io::Result<()> {
        self.call(PROG_ATTACH, cgroup, flags, 0)
    }

    /// Attaches it to a cgroup in the place of another program.
    pub(super) fn replace(&self, cgroup: &Path, other: &Self) -> io::Result<()> {
        let other = other.0.as_raw_fd().cast_unsigned();
        self.call(PROG_ATTACH, cgroup, MULTI | REPLACE, other)
    }

    /// Detaches it from a cgroup, unless a link attaches it.
    pub(super) fn detach(&self, cgroup: &Path) -> io::Result<()> {
        self.call(PROG_DETACH, cgroup, 0, 0)
    }

    fn call(&self, command: u32, cgroup: &Path, flags: u32, replaced: u32) -> io::Result<()> {
        let cgroup = File::open(cgroup)?;
        // target_fd, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd, relative_fd.
        let attributes: [u32; 6] = [
            cgroup.as_raw_fd().cast_unsigned(),
            self.0.as_raw_fd().cast_unsigned(),
            DEVICE,
            flags,
            replaced,
            0,
        ];
        bpf(command, &attributes).map(drop)
    }
}

/// The device programs that are attached to a cgroup itself.
pub(super) fn attached(cgroup: &Path) -> Result<Vec<DeviceProgram>> {
    let directory = File::open(cgroup)?;
    let mut ids = [0_u32; MOST];
    // target_fd and attach_type, query_flags and attach_flags, prog_ids, prog_cnt.
    let mut attributes: [u64; 4] = [
        u64::from(directory.as_raw_fd().cast_unsigned()) | (u64::from(DEVICE) << 32),
        0,
        u64::try_from(ids.as_mut_ptr().addr())?,
        u64::try_from(MOST)?,
    ];
    bpf_mut(PROG_QUERY, &mut attributes).context("list the device programs")?;
    let count = usize::try_from(attributes[3] & u64::from(u32::MAX))?;
    let open = |id: &u32| {
        let descriptor = bpf(PROG_GET_FD_BY_ID, &[*id]).context("open a program")?;
        // SAFETY: the kernel has just made it, and nothing else has it.
        Ok(DeviceProgram(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    };
    ids[..count].iter().map(open).collect()
}

pub(super) fn bpf<T: Copy, const N: usize>(command: u32, attributes: &[T; N]) -> io::Result<i32> {
    bpf_mut(command, &mut attributes.to_owned())
}

fn bpf_mut<T, const N: usize>(command: u32, attributes: &mut [T; N]) -> io::Result<i32> {
    // SAFETY: the kernel accesses the given number of bytes; the addresses in them are of buffers that live.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes),
        )
    };
    match i32::try_from(status) {
        Ok(status) if status >= 0 => Ok(status),
        _ => Err(io::Error::last_os_error()),
    }
}
