//! The argument of bpf(2) that loads a program.

use std::ffi::c_long;

use super::syscall::Attributes;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` uses here.
#[repr(C)]
#[derive(Default)]
pub(super) struct Load {
    pub(super) kind: u32,
    pub(super) count: u32,
    pub(super) instructions: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log: u64,
    pub(super) kernel_version: u32,
    pub(super) flags: u32,
    pub(super) name: [u8; 16],
    pub(super) interface: u32,
    pub(super) attach_type: u32,
}

const _: () = assert!(size_of::<Load>() == 72);

// SAFETY: as in linux/bpf.h. The kernel reads `count` instructions, and the license up to its zero byte. The
// functions that make one provide them, and room for the log.
unsafe impl Attributes for Load {
    /// `BPF_PROG_LOAD`.
    const COMMAND: c_long = 5;
}
