//! Reads frames at network devices.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Halves, Packet, Payload,
    frame::ethernet::{HEADER, Macs},
    packet::{Bytes, Carried, Extension, Place, locate, parse, read_address},
};

use super::skb::{Skb, qfence_extension, qfence_payload};

/// The packet in a frame. Its bytes begin with the IP header, those of the frame with the Ethernet header.
pub(crate) struct Frame(pub(crate) *mut __sk_buff);

impl Bytes for Frame {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        Skb(self.0).words(HEADER + offset)
    }

    #[inline(always)]
    fn linear<const N: usize>(&self) -> Option<&[u32; N]> {
        // SAFETY: the hook's own context; the verifier checks each access.
        let data = unsafe { (*self.0).data } as usize + HEADER as usize;
        // SAFETY: as above.
        let end = unsafe { (*self.0).data_end } as usize;
        if data + size_of::<[u32; N]>() > end {
            return None;
        }
        // SAFETY: the bounds were checked above, and nothing changes the bytes while they are read. The kernel aligns IP
        // headers to words, or the CPU needs no alignment.
        unsafe { (data as *const [u32; N]).as_ref() }
    }

    #[inline(always)]
    fn payload(&self, carried: Carried, offset: u32) -> Payload {
        let Carried { number, is_v6 } = carried;
        let offset = HEADER + offset;
        Payload::from_bits(qfence_payload(self.0, number, u32::from(is_v6), offset))
    }

    #[inline(always)]
    fn extension(&self, number: u32, offset: u32) -> Extension {
        Extension::from_bits(qfence_extension(self.0, number, HEADER + offset))
    }
}

/// Returns the ethertype of a frame, by which the kernel chooses who receives it. VLAN tags are not part of it, except
/// those that the kernel leaves in the frame.
#[inline(always)]
pub(crate) fn ethertype(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the hook's own context; the verifier checks each access.
    let protocol = unsafe { (*skb).protocol };
    // The field has 16 bits in network order.
    protocol.swap_bytes() >> 16
}

/// Returns the index of the device.
#[inline(always)]
pub(crate) fn device_index(skb: *mut __sk_buff) -> u32 {
    // SAFETY: as above.
    unsafe { (*skb).ifindex }
}

/// Returns the length of the packet in a frame.
#[inline(always)]
pub(crate) fn packet_length(skb: *mut __sk_buff) -> u32 {
    // SAFETY: as above.
    unsafe { (*skb).len }.saturating_sub(HEADER)
}

/// Returns the MAC addresses; zero if the frame is too short.
#[inline(always)]
pub(crate) fn macs(skb: *mut __sk_buff) -> Macs {
    match macs_in_place(skb) {
        Some(macs) => macs,
        None => Macs::of_words(Skb(skb).words(0).unwrap_or([0; 3])),
    }
}

/// Returns the MAC addresses if the first piece of the buffer has them, without a call of a helper.
#[inline(always)]
pub(crate) fn macs_in_place(skb: *mut __sk_buff) -> Option<Macs> {
    Some(Macs::of_words(Skb(skb).linear()?.map(u32::from_be)))
}

/// Returns the first words of the packet in a frame, as numbers, if the first piece of the buffer has them, without a call of
/// a helper.
#[inline(always)]
pub(crate) fn in_place<const N: usize>(skb: *mut __sk_buff) -> Option<[u32; N]> {
    Some(Frame(skb).linear::<N>()?.map(u32::from_be))
}

/// Returns the source address of the packet in a frame; zero if it has none.
#[inline(always)]
pub(crate) fn source(skb: *mut __sk_buff) -> Halves {
    if let Some([first, _, a, b, c, d]) = in_place::<6>(skb) {
        match first >> 28 {
            4 => return Halves::from_v4(b),
            6 => return Halves::from_v6([a, b, c, d]),
            _ => {}
        }
    }
    read_address(&Frame(skb), true)
}

/// Parses the IP packet in a frame; `None` if it cannot be parsed.
#[inline(always)]
pub(crate) fn packet(skb: *mut __sk_buff) -> Option<Packet> {
    parse(&Frame(skb))
}

/// Returns the place of the payload of the packet in a frame.
#[inline(always)]
pub(crate) fn place(skb: *mut __sk_buff) -> Place {
    Place::from_bits(qfence_locate(skb))
}

/// Finds the payload of the packet in a frame, and returns the packed place. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_locate(skb: *mut __sk_buff) -> u64 {
    locate(&Frame(skb)).bits()
}

/// Reads a word at an offset from the IP header; 0 if the packet ends before.
#[inline(always)]
pub(crate) fn word(skb: *mut __sk_buff, offset: u32) -> u32 {
    Frame(skb).words(offset).map_or(0, |[word]| word)
}

/// Reads an IPv6 address at an offset from the IP header.
#[inline(always)]
pub(crate) fn address_v6(skb: *mut __sk_buff, offset: u32) -> Option<Halves> {
    Frame(skb).words(offset).map(Halves::from_v6)
}
