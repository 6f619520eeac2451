//! Reads the numbers of a TCP socket that show who opened its connection, without waiting for the lock of the socket, which
//! a process can keep.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use qfence_common::listing::Shown;

use super::socket::INET6;
use crate::maps::LISTING_OFFSETS;

/// How often the numbers are read until two readings are equal.
const READINGS: usize = 8;

/// Returns the numbers of a socket. `at` returns the address of a member of the socket, by its offset; `None` if the
/// numbers change faster than they can be read.
#[inline(always)]
pub(crate) fn shown(at: impl Fn(u32) -> u64) -> Option<Shown> {
    let mut before = read_once(&at);
    for _ in 0..READINGS {
        let now = read_once(&at);
        if are_equal(&now, &before) {
            return Some(now);
        }
        before = now;
    }
    None
}

/// Whether two readings are equal, by one branch: the verifier of Linux 6.1 follows each branch of each reading.
#[inline(always)]
fn are_equal(one: &Shown, other: &Shown) -> bool {
    let difference = (one.state ^ other.state)
        | (one.device ^ other.device)
        | (one.next ^ other.next)
        | (one.unacknowledged ^ other.unacknowledged)
        | (one.end ^ other.end)
        | (one.acknowledged ^ other.acknowledged)
        | (one.sent ^ other.sent)
        | (one.again ^ other.again);
    difference == 0
}

#[inline(always)]
fn read_once(at: &impl Fn(u32) -> u64) -> Shown {
    let offsets = LISTING_OFFSETS.load();
    let is_v6 = u32::from(half(at(offsets.family))) == INET6;
    let device = if !is_v6 {
        word(at(offsets.device))
    } else if offsets.v6 != 0 {
        word(long(at(offsets.v6)) + u64::from(offsets.v6_device))
    } else {
        0
    };
    Shown {
        state: u32::from(byte(at(offsets.state))),
        device,
        next: word(at(offsets.next)),
        unacknowledged: word(at(offsets.unacknowledged)),
        end: word(at(offsets.end)),
        acknowledged: lower(at(offsets.acknowledged)),
        sent: lower(at(offsets.sent)),
        again: lower(at(offsets.again)),
    }
}

/// Reads the lower half of eight bytes of kernel memory.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn lower(address: u64) -> u32 {
    long(address) as u32
}

/// Reads eight bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
fn long(address: u64) -> u64 {
    let mut value = 0_u64;
    fill((&raw mut value).cast(), 8, address);
    value
}

/// Reads four bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
pub(crate) fn word(address: u64) -> u32 {
    let mut value = 0_u32;
    fill((&raw mut value).cast(), 4, address);
    value
}

/// Reads two bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
pub(crate) fn half(address: u64) -> u16 {
    let mut value = 0_u16;
    fill((&raw mut value).cast(), 2, address);
    value
}

/// Reads a byte of kernel memory; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn byte(address: u64) -> u8 {
    let mut value = 0_u8;
    fill((&raw mut value).cast(), 1, address);
    value
}

/// Fills a place of this size with kernel memory, without a branch for what cannot be read: the kernel fills it with zeros then
/// (`bpf_probe_read_kernel_common` in kernel/trace/bpf_trace.c).
#[inline(always)]
fn fill(place: *mut c_void, size: u32, address: u64) {
    // SAFETY: a place of the caller's with this size. The helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(place, size, address as *const c_void) };
}
