//! The hook of the security module BPF for files that a process gets from another one: refuses devices for networks that the
//! fence does not see. libvirt opens the tap device of an interface that is added to a running guest, and hands it to QEMU.
//!
//! The cgroup of the process that receives the file decides whether the program runs.

use aya_ebpf::{EbpfContext as _, programs::LsmContext};
use qfence_common::{
    Halves, Hook,
    device::{MINOR_BITS, is_dynamic, is_refused},
    verdict::DEVICE,
};

use crate::{
    account::{
        PROCEED,
        record::{Refusal, refuse},
    },
    hooks::listing::{CHARACTER, TYPE},
    judge::policy::monitors,
    maps::{ALLOW_DEVICES, LISTING_OFFSETS},
    subject::{
        author::Author,
        netns::read,
        shown::{half, word},
    },
};

/// Judges the file, which is the hook's first argument. A file without an inode, which no process has, is refused.
#[inline(always)]
pub(crate) fn judge_received(ctx: &LsmContext) -> i32 {
    let offsets = LISTING_OFFSETS.load();
    // Read as a number: the verifier would check each use of it as a pointer.
    let file = read(ctx.as_ptr() as u64);
    let inode = read(file + u64::from(offsets.inode));
    if inode != 0 && half(inode + u64::from(offsets.mode)) & TYPE != CHARACTER {
        return PROCEED;
    }
    let numbers = word(inode + u64::from(offsets.numbers));
    let (major, minor) = (numbers >> MINOR_BITS, numbers & ((1 << MINOR_BITS) - 1));
    // The driver of macvtap devices may get its number later than the fence its programs.
    let is_network = is_refused(ALLOW_DEVICES.load(), major, minor) || is_dynamic(major);
    if inode != 0 && !is_network {
        return PROCEED;
    }
    let what = Refusal {
        address: Halves::NONE,
        port: minor,
        protocol: major,
        hook: Hook::FileReceive as u32,
        rule: DEVICE,
        source: Halves::NONE,
        source_port: 0,
    };
    refuse(&what, &Author::current(0), monitors())
}
