//! Frames of a guest at a network device of the host: the types that the programs for devices and their loader share.
//!
//! Two layers judge a frame. The first is the program at the device, which reads the frame. It tags every frame that it
//! lets through. The second is a program where the host receives packets for itself: it drops what has a tag, unless the
//! tag says that an exception applies. So it needs no address, and translation of addresses in between changes nothing.

pub mod answer;
pub mod arp;
pub mod checksum;
pub mod control;
pub mod ethernet;

use crate::{Halves, abi::FRAME_DEVICES};

/// The bit of `skb->mark` that every frame from a fenced device gets. Others use other bits by default: Calico 16 to 31,
/// Tailscale 16 to 23, Cilium 8 to 11 and 16 to 31, kube-proxy 14 and 15, WireGuard's wg-quick those of 0xca6c, AWS 7. And
/// small numbers are common in rules of the host's own.
pub const MARK: u32 = 1 << 12;

/// The bit of `skb->mark` that a frame gets in place of [`MARK`] if an exception lets it through to the host, for a device
/// with [`MARKS_EXCEPTIONS`].
pub const EXCEPTION_MARK: u32 = 1 << 13;

/// The bit of `skb->tc_index` that every frame from a fenced device gets.
pub const TAG: u16 = 1 << 15;

/// The bit of `skb->tc_index` of a frame that an exception lets through to the host.
pub const EXCEPTION: u16 = 1 << 14;

/// The bits of `skb->tc_index` for the number of the fence in its network namespace.
pub const SLOT: u16 = EXCEPTION - 1;

/// In [`crate::AttemptKey::protocol`]: the frame is not IP, and the lower 16 bits are its ethertype.
pub const NOT_IP: u32 = 1 << 16;

/// In the global for refused frames: TCP is reset, and other protocols get the ICMP error for what is prohibited.
pub const ANSWER_PROHIBITED: u32 = 0;

/// In the global for refused frames: they are dropped without an answer.
pub const DROP_SILENTLY: u32 = 1;

/// In the global for refused frames: TCP is reset, and other protocols get the ICMP error for an unreachable port.
pub const ANSWER_UNREACHABLE: u32 = 2;

/// How long after the host last sent to a guest, in nanoseconds, the guest may answer: five minutes, as for peers.
pub const AWAITED_FOR_NS: u64 = crate::peer::SILENCE_NS;

/// What the program at a device knows of it: an entry of the table of devices, which is an array, because the kernel inlines
/// its look-ups. An entry is at the [first free place](place) for its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Device {
    /// The index of the device; 0 if the place is free.
    pub index: u32,
    /// The number of the fence in its network namespace, from 1 to [`SLOT`].
    pub slot: u32,
    /// Bits of [`LEARNS_MAC`], [`REVERSED`], [`SERVED`] and [`MARKS_EXCEPTIONS`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// A MAC address of the guest, as [a number](ethernet::mac_number), so that most frames need no second lookup; 0 if none
    /// is known yet. The guest may have more.
    pub mac: u64,
}

const _: () = assert!(size_of::<Device>() == 24 && align_of::<Device>() == 8);

/// Returns the place in the table of devices at which the entry of a device is looked for in a step, from 0 on. Another device
/// can have that place.
#[must_use]
#[inline(always)]
pub const fn place(index: u32, step: u32) -> u32 {
    index.wrapping_add(step) % FRAME_DEVICES
}

/// The first frame determines the MAC address of the guest, because nobody gave one.
pub const LEARNS_MAC: u32 = 1;

/// A macvtap device: the frames of its guest leave the host's side of it.
pub const REVERSED: u32 = 2;

/// The host may serve the guest's network: the exception for DHCP lets questions through to the host, and not only to other
/// servers of the network.
pub const SERVED: u32 = 4;

/// The second layer is a table of nftables, which sees marks and not `tc_index`: exceptions have a mark of their own.
pub const MARKS_EXCEPTIONS: u32 = 8;

/// A MAC address that a guest may use: the key in the map of addresses; the value has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GuestMac {
    /// The index of the device.
    pub device: u32,
    /// Zero: the kernel compares all bytes of a key.
    pub reserved: u32,
    /// The address, as [a number](ethernet::mac_number).
    pub mac: u64,
}

const _: () = assert!(size_of::<GuestMac>() == 16 && align_of::<GuestMac>() == 8);

/// An address of the host in the guest's network: of the device itself, or of the bridge that it is a port of. ARP,
/// neighbour discovery, DHCP and DNS for it are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Gateway {
    /// The address.
    pub address: Halves,
    /// The index of the guest's device.
    pub device: u32,
    /// Zero: the kernel compares all bytes of a key.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Gateway>() == 24 && align_of::<Gateway>() == 8);

/// What the host sent to a guest by itself: the answer may come back. The value is the time, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sent {
    /// The address of the host.
    pub host: Halves,
    /// The address of the guest.
    pub guest: Halves,
    /// The port of the host, in host order; for an echo request its identifier.
    pub host_port: u16,
    /// The port of the guest, in host order; 0 for an echo request.
    pub guest_port: u16,
    /// The IP protocol.
    pub protocol: u32,
    /// The index of the device.
    pub device: u32,
    /// Zero: the kernel compares all bytes of a key.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Sent>() == 48 && align_of::<Sent>() == 8);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Device {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for GuestMac {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Gateway {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Sent {}
