//! The program that judges what the host receives for itself: the types that it shares with the user side, and the names
//! of its maps. It is the second layer for frames of guests; see [`crate::frame`]. A network namespace has one, which all
//! fences with devices in it share.

use crate::Halves;

/// The hash map of the fences in the network namespace: from the number of a fence, which frames have in their tag, to its
/// [`Member`]. Numbers are unique among all namespaces, so that a tag from another namespace is not mistaken.
pub const MEMBERS_MAP: &str = "MEMBERS";

/// The hash map of the fenced devices: from the index of a device to its [`Guarded`].
pub const GUARDED_DEVICES_MAP: &str = "GUARDED_DEVICES";

/// The hash map of the MAC addresses of fenced guests: from the address, as a number, to its [`Guarded`].
pub const GUARDED_MACS_MAP: &str = "GUARDED_MACS";

/// The array of one [`Filter`], with a [bit](filter_bit) for each guarded device and MAC address. What has no bit is not
/// looked for in the maps: most packets are nobody's. Different ones can share a bit, and a bit stays when its device is not
/// guarded any more.
pub const GUARDED_FILTER_MAP: &str = "GUARDED_FILTER";

/// The LRU hash map of what was dropped: from [`Dropped`] to the number of packets since the entry was made.
pub const DROPPED_MAP: &str = "DROPPED";

/// The global for the [`Offsets`] in the kernel's types.
pub const LOCAL_IN_OFFSETS: &str = "LOCAL_IN_OFFSETS";

/// The maximum number of fences with devices in a network namespace.
pub const MEMBERS: u32 = 1024;

/// The maximum number of fenced devices in a network namespace.
pub const GUARDED_DEVICES: u32 = 4096;

/// The maximum number of MAC addresses of fenced guests in a network namespace.
pub const GUARDED_MACS: u32 = 16384;

/// The words of the filter.
pub type Filter = [u64; FILTER_WORDS];

const FILTER_WORDS: usize = 64;

/// The bit of a device, by its index, or of a MAC address, as a number: the index of the word, and the mask. It depends on
/// the lower half of a MAC address, in which the guests of a host differ.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "six bits of it")]
pub const fn filter_bit(guarded: u64) -> (usize, u64) {
    const BITS: u32 = FILTER_WORDS.trailing_zeros() + u64::BITS.trailing_zeros();
    let folded = guarded ^ guarded >> BITS;
    let word = (folded >> u64::BITS.trailing_zeros()) as usize % FILTER_WORDS;
    (word, 1 << (folded % u64::BITS as u64))
}

const _: () = assert!(FILTER_WORDS.is_power_of_two());

/// The maximum number of destinations that are counted. Beyond it the kernel forgets those that were not counted for
/// longest; their packets are still in [`Member::drops`].
pub const DROPPED: u32 = 2048;

/// The number of bytes for the name of a fence.
pub const NAME_BYTES: usize = 80;

/// The number of no fence: in [`Dropped::slot`], only the mark of a packet shows that it is a guest's.
pub const NO_SLOT: u32 = 0;

/// A fence of the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Member {
    /// All packets that were dropped because of this fence. It never decreases.
    pub drops: u64,
    /// The name of the fence, padded with zeros.
    pub name: [u8; NAME_BYTES],
}

const _: () = assert!(size_of::<Member>() == 88 && align_of::<Member>() == 8);

/// The fence and the device of a guest, by which its packets are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Guarded {
    /// The number of the fence.
    pub slot: u32,
    /// The index of the device.
    pub device: u32,
}

const _: () = assert!(size_of::<Guarded>() == 8 && align_of::<Guarded>() == 4);

/// What was dropped: the fence and device of the guest, and the destination after all translation of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Dropped {
    /// The address of the host.
    pub address: Halves,
    /// The number of the fence, or [`NO_SLOT`].
    pub slot: u32,
    /// The index of the guest's device, or 0 if only the tag of the packet was seen.
    pub device: u32,
    /// The IP protocol.
    pub protocol: u32,
    /// The destination port, in host order; 0 if there is none, or it could not be read.
    pub port: u16,
    /// Zero: the kernel compares all bytes of a key.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Dropped>() == 32 && align_of::<Dropped>() == 8);

/// Offsets in bytes, each within the named type of the kernel. They differ between kernels; the loader reads them from
/// the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `nf_hook_state.in`: the device by which a packet came.
    pub state_in: u32,
    /// `net_device.ifindex`.
    pub device_index: u32,
    /// `sk_buff.tc_index`, in 16 bits.
    pub tc_index: u32,
    /// `sk_buff.mark`.
    pub mark: u32,
    /// `sk_buff.skb_iif`: the index of the device at which the host received the packet.
    pub first_device: u32,
    /// `sk_buff.dev`.
    pub device: u32,
    /// `sk_buff.head`: the address of the buffer.
    pub head: u32,
    /// `sk_buff.tail`: the end of the linear bytes, from `head`.
    pub tail: u32,
    /// `sk_buff.mac_header`, from `head`, in 16 bits.
    pub mac_header: u32,
    /// `sk_buff.network_header`, from `head`, in 16 bits.
    pub network_header: u32,
    /// `sk_buff.transport_header`, from `head`, in 16 bits.
    pub transport_header: u32,
    /// `nf_hook_state.pf`: the family, in 8 bits.
    pub family: u32,
    /// The number of the kernel's function `bpf_rdonly_cast` in its type information (Linux 6.2), if the program calls it;
    /// otherwise 0.
    pub casts: u32,
    /// The number of the type `ethhdr` there. It counts only if the program calls that function.
    pub ethernet: u32,
}

const _: () = assert!(size_of::<Offsets>() == 56 && align_of::<Offsets>() == 4);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Member {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Guarded {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Dropped {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_the_filter_is_within_it() {
        let bits = [0, 1, 63, 64, 4095, 4096, 0x0200_0000_0010, u64::MAX].map(filter_bit);
        assert!(
            bits.iter()
                .all(|(index, mask)| *index < FILTER_WORDS && mask.is_power_of_two())
        );
        assert_eq!(bits[3], (1, 1));
        assert_eq!(bits[4], (63, 1 << 63));
        // MAC addresses that differ in their last bytes do not share bits.
        let guests = [0x0200_0000_0010, 0x0200_0000_0011, 0x0200_0000_0110].map(filter_bit);
        assert_ne!(guests[0], guests[1]);
        assert_ne!(guests[0], guests[2]);
    }
}
