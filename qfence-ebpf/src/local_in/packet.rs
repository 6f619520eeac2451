//! Reads the packet: members of the kernel's structs, and bytes of headers.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use qfence_common::local_in::Offsets;

use crate::{
    LOCAL_IN_OFFSETS,
    kernel::{call, number},
};

/// The offset of the source address in an Ethernet header, and that of its last two bytes.
const SOURCE: u32 = 6;
const END_OF_SOURCE: u32 = 10;

/// The source of a packet's Ethernet header, as a number; `None` if it has none, or it is not linear.
///
/// Where the kernel has `bpf_rdonly_cast` (Linux 6.2) the header is read by loads, else by a helper, which takes 13 ns more.
#[inline(always)]
pub(crate) fn ethernet_source(skb: *const u8) -> Option<u64> {
    if number(&LOCAL_IN_OFFSETS, |offsets| &offsets.casts) == 0 {
        let source = bytes(skb, |offsets| &offsets.mac_header, SOURCE)?;
        let [a, b, c, d, e, f]: [u8; 6] = source;
        return Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    }
    let header = address(skb, |offsets| &offsets.mac_header, 0, END_OF_SOURCE + 2)?;
    let kind = number(&LOCAL_IN_OFFSETS, |offsets| &offsets.ethernet);
    let header = call(header, MaybeUninit::new(kind.into()));
    // SAFETY: the verifier checks that the bytes are within the type, and the kernel returns zero for an address that cannot be
    // read (`BPF_PROBE_MEM`).
    let begin = unsafe { load::<u32>(header, SOURCE) };
    // SAFETY: as above.
    let end = unsafe { load::<u16>(header, END_OF_SOURCE) };
    Some(u64::from(u32::from_be(begin)) << u16::BITS | u64::from(u16::from_be(end)))
}

/// Reads linear bytes of a packet, from the header whose offset is at `header` in the `sk_buff`; `None` if they are not
/// linear.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the size of a few words of a header"
)]
pub(crate) fn bytes<T: Copy>(
    skb: *const u8,
    header: impl FnOnce(&Offsets) -> &u32,
    within: u32,
) -> Option<T> {
    let address = address(skb, header, within, size_of::<T>() as u32)?;
    // SAFETY: the helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(address.cast()) }.ok()
}

/// The address of `length` bytes of a packet, `within` bytes from the header whose offset is at `header` in the `sk_buff`;
/// `None` if they are not linear.
#[inline(always)]
fn address(
    skb: *const u8,
    header: impl FnOnce(&Offsets) -> &u32,
    within: u32,
    length: u32,
) -> Option<*const u8> {
    let header: u16 = read(skb, header);
    // 0xffff means that there is no such header (`skb_mac_header_was_set`).
    if header == u16::MAX {
        return None;
    }
    let begin = u32::from(header) + within;
    let tail: u32 = read(skb, |offsets| &offsets.tail);
    if begin + length > tail {
        return None;
    }
    let head: u64 = read(skb, |offsets| &offsets.head);
    Some(head.wrapping_add(u64::from(begin)) as *const u8)
}

/// Reads a member of one of the kernel's structs.
#[inline(always)]
pub(crate) fn read<T: Copy>(of: *const u8, offset: impl FnOnce(&Offsets) -> &u32) -> T {
    let offset = number(&LOCAL_IN_OFFSETS, offset);
    // SAFETY: the verifier checks that there is such a member, and the kernel returns zero for an address that cannot be
    // read.
    unsafe { load(of, offset) }
}

/// Loads from an offset.
///
/// # Safety
/// The verifier must check the access.
#[inline(always)]
unsafe fn load<T: Copy>(of: *const u8, offset: u32) -> T {
    let member = of.wrapping_add(offset as usize).cast::<T>();
    // SAFETY: the caller says that the verifier checks it. The read is volatile, so that it keeps its width.
    unsafe { member.read_volatile() }
}
