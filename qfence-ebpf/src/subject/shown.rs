//! Reads the numbers of a TCP socket that show who opened its connection, without waiting for the lock of the socket, which
//! a process can keep.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use qfence_common::listing::Shown;

use super::{netns, socket::INET6};
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
        if now == before {
            return Some(now);
        }
        before = now;
    }
    None
}

#[inline(always)]
fn read_once(at: &impl Fn(u32) -> u64) -> Shown {
    let offsets = LISTING_OFFSETS.load();
    let is_v6 = u32::from(half(at(offsets.family))) == INET6;
    let device = if !is_v6 {
        word(at(offsets.device))
    } else if offsets.v6 != 0 {
        word(netns::read(at(offsets.v6)) + u64::from(offsets.v6_device))
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
    netns::read(address) as u32
}

/// Reads four bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
pub(crate) fn word(address: u64) -> u32 {
    // SAFETY: the helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const u32) }.unwrap_or(0)
}

/// Reads two bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
pub(crate) fn half(address: u64) -> u16 {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const u16) }.unwrap_or(0)
}

/// Reads a byte of kernel memory; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn byte(address: u64) -> u8 {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const u8) }.unwrap_or(0)
}
