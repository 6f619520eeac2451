//! Whether a frame can be of the device's guest at all: the table of devices, MAC addresses, ethertypes.

use core::hint::cold_path;

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use qfence_common::{
    abi,
    frame::{
        self, Device, GuestMac, LEARNS_MAC,
        ethernet::{ARP, IPV4, IPV6, Macs, VLAN, is_group},
    },
    packet::Bytes as _,
    verdict::{FRAME_KIND, SPOOFED_MAC, UNPARSED},
};

use crate::{
    maps::frame::{FRAME_DEVICES, GUEST_MACS, LEARNT_MACS},
    subject::{frame::device_index, skb::Skb},
};

/// Returns what is known of a device of the fence.
#[inline(always)]
pub(crate) fn device(index: u32) -> Option<Device> {
    let device = entry(index)?;
    // SAFETY: the map's value, aligned and alive as long as the program runs. The loader writes it before it attaches the
    // programs to the device; later it and `is_of_guest` only change whole words.
    Some(unsafe { device.read_volatile() })
}

/// Returns the entry of a device in the table.
#[inline(always)]
fn entry(index: u32) -> Option<*mut Device> {
    if index == 0 {
        return None;
    }
    for step in 0..abi::FRAME_DEVICES {
        let device = FRAME_DEVICES.get_ptr_mut(frame::place(index, step))?;
        // SAFETY: the map's value, aligned and alive as long as the program runs.
        let found = unsafe { &raw const (*device).index };
        // SAFETY: as above.
        if unsafe { found.read_volatile() } == index {
            return Some(device);
        }
        cold_path();
    }
    None
}

/// Returns the number of the rule by which a frame is refused whatever it carries; or 0.
#[inline(always)]
pub(crate) fn reason_against_frame(skb: *mut __sk_buff, kind: u32, device: Device) -> u32 {
    // The kernel has taken the outermost tag out of the frame, so `protocol` is that behind it.
    // SAFETY: the hook's own context; the verifier checks each access.
    if unsafe { (*skb).vlan_present } != 0 && unsafe { (*skb).vlan_tci } & VLAN != 0 {
        cold_path();
        return FRAME_KIND;
    }
    if !matches!(kind, IPV4 | IPV6 | ARP) {
        cold_path();
        return FRAME_KIND;
    }
    // The MAC addresses, the ethertype, and the first two bytes of the packet.
    let Some([a, b, c, d]) = first_words(skb) else {
        cold_path();
        return UNPARSED;
    };
    let from = Macs::of_words([a, b, c]).from;
    let is_known = from != 0 && from == device.mac;
    if !is_known {
        cold_path();
        if qfence_is_of_guest(device_index(skb), from, device.flags) == 0 {
            return SPOOFED_MAC;
        }
    }
    let version = d >> 12 & 0xf;
    match kind {
        IPV4 if version != 4 => UNPARSED,
        IPV6 if version != 6 => UNPARSED,
        _ => 0,
    }
}

/// Returns the first words of a frame, as numbers; `None` if it is shorter.
#[inline(always)]
fn first_words(skb: *mut __sk_buff) -> Option<[u32; 4]> {
    match Skb(skb).linear::<4>() {
        Some(words) => Some(words.map(u32::from_be)),
        None => {
            cold_path();
            Skb(skb).words(0)
        }
    }
}

/// Whether a MAC address is the guest's: 0 or 1. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_is_of_guest(device: u32, mac: u64, flags: u32) -> u32 {
    is_of_guest(device, mac, flags).into()
}

/// Whether a MAC address is the guest's. If the first frame is to determine it, and has not done so, this one does.
#[inline(always)]
fn is_of_guest(device: u32, mac: u64, flags: u32) -> bool {
    if mac == 0 || is_group(mac) {
        return false;
    }
    let key = GuestMac {
        device,
        reserved: 0,
        mac,
    };
    if GUEST_MACS.get_ptr(key).is_some() {
        return true;
    }
    if let Some(learnt) = learnt(device) {
        return learnt == mac;
    }
    if flags & LEARNS_MAC == 0 {
        return false;
    }
    // Of several frames at once, on several CPUs, one determines it.
    let _ = LEARNT_MACS.insert(device, mac, BPF_NOEXIST.into());
    if learnt(device) != Some(mac) {
        return false;
    }
    if let Some(known) = entry(device) {
        // SAFETY: the map's value, aligned and alive as long as the program runs.
        let known = unsafe { &raw mut (*known).mac };
        // SAFETY: as above. No other address gets this far.
        unsafe { known.write_volatile(mac) };
    }
    true
}

#[inline(always)]
fn learnt(device: u32) -> Option<u64> {
    // SAFETY: a program writes the value once. If the loader writes another one, either is the guest's.
    unsafe { LEARNT_MACS.get(device) }.copied()
}
