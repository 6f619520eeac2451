//! The arguments of bpf(2) that load a program and its type information.

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
    /// The descriptor of the program's type information, or 0.
    pub(super) types: u32,
    /// The size of an entry of `functions`, in bytes.
    pub(super) function_size: u32,
    pub(super) functions: u64,
    pub(super) function_count: u32,
    /// `line_info_rec_size`: no lines.
    pub(super) line_size: u32,
}

const _: () = assert!(size_of::<Load>() == 96);

// SAFETY: as in linux/bpf.h. The kernel reads `count` instructions, `function_count` entries, and the license up to its
// zero byte. The functions that make one provide them, and room for the log.
unsafe impl Attributes for Load {
    /// `BPF_PROG_LOAD`.
    const COMMAND: c_long = 5;
}

/// The part of `union bpf_attr` that `BPF_BTF_LOAD` uses here.
#[repr(C)]
#[derive(Default)]
pub(super) struct LoadTypes {
    pub(super) types: u64,
    pub(super) log: u64,
    pub(super) size: u32,
    pub(super) log_size: u32,
    pub(super) log_level: u32,
    pub(super) padding: u32,
}

const _: () = assert!(size_of::<LoadTypes>() == 32);

// SAFETY: as in linux/bpf.h. The kernel reads `size` bytes, which the functions that make one provide.
unsafe impl Attributes for LoadTypes {
    /// `BPF_BTF_LOAD`.
    const COMMAND: c_long = 18;
}
