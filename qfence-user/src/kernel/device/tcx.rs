//! Links of programs to network devices (tcx, Linux 6.6). aya makes them by the name of a device, which another device can
//! get meanwhile.

use std::{
    ffi::c_long,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context as _, Result};
use qfence_common::Hook;

use crate::kernel::syscall::{Attributes, bpf_fd, number};

/// `BPF_F_BEFORE`: before all programs that are attached now.
const BEFORE: u32 = 1 << 3;

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` uses for tcx.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    /// None: the link is before all, and not before a certain one.
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

const _: () = assert!(size_of::<LinkCreate>() == 32);

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for LinkCreate {
    /// `BPF_LINK_CREATE`.
    const COMMAND: c_long = 28;
}

/// A direction of frames through a device: its attach type, of `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Way(pub(in crate::kernel) u32);

/// Frames that enter the host.
pub(in crate::kernel) const INGRESS: Way = Way(Hook::Frame.row().attach_type);

/// Frames that leave the host.
pub(in crate::kernel) const EGRESS: Way = Way(Hook::FrameOut.row().attach_type);

impl Way {
    /// Both directions.
    pub(super) const BOTH: [Self; 2] = [INGRESS, EGRESS];
}

/// The direction at which the program of a hook is attached. A macvtap is reversed: what its guest sends leaves the host's
/// side of it.
pub(super) const fn way(hook: Hook, is_reversed: bool) -> Way {
    if matches!(hook, Hook::FrameOut) == is_reversed {
        INGRESS
    } else {
        EGRESS
    }
}

/// Attaches a loaded program to a device of the caller's network namespace, before all others, as long as the link is open
/// or pinned.
///
/// # Errors
/// Errors of bpf(2).
pub(in crate::kernel) fn attach(program: &impl AsFd, index: u32, way: Way) -> Result<OwnedFd> {
    let link = bpf_fd(&mut LinkCreate {
        prog_fd: number(program)?,
        target_ifindex: index,
        attach_type: way.0,
        flags: BEFORE,
        ..LinkCreate::default()
    });
    link.context("the kernel did not make a link to the device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_sends_enters_by_a_tap_and_leaves_by_a_macvtap() {
        // As in `enum bpf_attach_type`.
        assert_eq!((INGRESS, EGRESS), (Way(46), Way(47)));
        assert_eq!(way(Hook::Frame, false), INGRESS);
        assert_eq!(way(Hook::FrameOut, false), EGRESS);
        assert_eq!(way(Hook::Frame, true), EGRESS);
        assert_eq!(way(Hook::FrameOut, true), INGRESS);
    }
}
