//! The program for packets that the host receives for itself (`NF_INET_LOCAL_IN`): an object of its own, because all
//! fences of a network namespace share it.
//!
//! It runs after all translation of addresses, so it does not look at addresses. It drops a packet of a fenced guest,
//! unless its tag says that an exception applies. Four things show that a packet is a guest's, in this order: `tc_index`,
//! which nothing but a filter of traffic control can change; the device by which it came; the source of its Ethernet header;
//! the mark, which rules of the host can change.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(internal_features, reason = "see main.rs")]

mod packet;

#[path = "../kernel.rs"]
mod kernel;
#[path = "../object.rs"]
mod object;

use core::{
    hint::cold_path,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap},
    macros::btf_map,
};
use qfence_common::{
    Halves, frame,
    local_in::{self, Dropped, Filter, Guarded, Member, NO_SLOT, Offsets},
};

use packet::{bytes, ethernet_source, read};

/// The fences of this network namespace, by number.
#[btf_map]
static MEMBERS: HashMap<
    u32,
    Member,
    { local_in::MEMBERS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The fenced devices, by index.
#[btf_map]
static GUARDED_DEVICES: HashMap<
    u32,
    Guarded,
    { local_in::GUARDED_DEVICES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The MAC addresses of fenced guests.
#[btf_map]
static GUARDED_MACS: HashMap<
    u64,
    Guarded,
    { local_in::GUARDED_MACS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The bits of the devices and MAC addresses in these maps.
#[btf_map]
static GUARDED_FILTER: Array<Filter, 1> = Array::new();

/// What was dropped.
#[btf_map]
static DROPPED: LruHashMap<Dropped, u64, { local_in::DROPPED as usize }> = LruHashMap::new();

/// The offsets in the kernel's types.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static LOCAL_IN_OFFSETS: Global<Offsets> = Global::new(Offsets {
    state_in: 0,
    device_index: 0,
    tc_index: 0,
    mark: 0,
    first_device: 0,
    device: 0,
    head: 0,
    tail: 0,
    mac_header: 0,
    network_header: 0,
    transport_header: 0,
    family: 0,
    casts: 0,
    ethernet: 0,
});

/// The results of the program: `NF_DROP` and `NF_ACCEPT`.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;

/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;

/// `struct bpf_nf_ctx`: the addresses of a `nf_hook_state` and of a `sk_buff`.
#[repr(C)]
pub struct NetfilterContext {
    state: *const u8,
    skb: *const u8,
}

/// A packet that the host receives for itself. The section is that of another type, because aya does not know this one.
/// The loader loads it as its own.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
fn judge_local_in(ctx: *mut NetfilterContext) -> i32 {
    // SAFETY: the hook's own context; the verifier checks the access.
    let state = unsafe { (*ctx).state };
    // SAFETY: as above.
    let skb = unsafe { (*ctx).skb };
    let tag: u16 = read(skb, |offsets| &offsets.tc_index);
    if tag & frame::TAG != 0 {
        cold_path();
        let slot = u32::from(tag & frame::SLOT);
        // The tag of a fence in another network namespace means nothing here.
        if MEMBERS.get_ptr(slot).is_some() {
            if tag & frame::EXCEPTION != 0 {
                return ACCEPT;
            }
            let device = guest(state, skb).map_or(0, |guest| guest.device);
            return refuse(state, skb, Guarded { slot, device });
        }
    }
    if let Some(guest) = guest(state, skb) {
        cold_path();
        return refuse(state, skb, guest);
    }
    let mark: u32 = read(skb, |offsets| &offsets.mark);
    if mark & frame::MARK != 0 {
        cold_path();
        let nobody = Guarded {
            slot: NO_SLOT,
            device: 0,
        };
        return refuse(state, skb, nobody);
    }
    ACCEPT
}

/// The guest whose device or MAC address a packet shows.
#[inline(always)]
fn guest(state: *const u8, skb: *const u8) -> Option<Guarded> {
    let filter = GUARDED_FILTER.get_ptr(0);
    let hooked: *const u8 = read(state, |offsets| &offsets.state_in);
    let index = index_of(hooked);
    if let Some(guest) = by_device(filter, index) {
        return Some(guest);
    }
    // It is the same device, mostly: the kernel calls the hook with that of the packet.
    let device: *const u8 = read(skb, |offsets| &offsets.device);
    if device != hooked {
        cold_path();
        if let Some(guest) = by_device(filter, index_of(device)) {
            return Some(guest);
        }
    }
    let first: u32 = read(skb, |offsets| &offsets.first_device);
    if first != index {
        cold_path();
        if let Some(guest) = by_device(filter, first) {
            return Some(guest);
        }
    }
    let mac = ethernet_source(skb)?;
    if !may_be_guarded(filter, mac) {
        return None;
    }
    cold_path();
    // SAFETY: the value is only copied, and user space replaces values as a whole.
    unsafe { GUARDED_MACS.get(mac) }.copied()
}

/// The index of a device.
#[inline(always)]
fn index_of(device: *const u8) -> u32 {
    read(device, |offsets| &offsets.device_index)
}

#[inline(always)]
fn by_device(filter: Option<*const Filter>, index: u32) -> Option<Guarded> {
    if !may_be_guarded(filter, index.into()) {
        return None;
    }
    cold_path();
    // SAFETY: as above.
    unsafe { GUARDED_DEVICES.get(index) }.copied()
}

/// Whether the maps may have this device, or MAC address, by the filter. Without a filter they may.
#[inline(always)]
fn may_be_guarded(filter: Option<*const Filter>, guarded: u64) -> bool {
    let (index, mask) = local_in::filter_bit(guarded);
    let word = filter.map(|filter| filter.cast::<u64>().wrapping_add(index));
    // SAFETY: a word of the map's value, aligned and alive as long as the program runs. User space only sets bits.
    word.is_none_or(|word| unsafe { word.read_volatile() } & mask != 0)
}

/// Counts a packet, and drops it. The entry of the destination is counted before the fence's total. So a reader that
/// reads the total first finds all of it among the entries, except what the map forgot.
#[inline(always)]
fn refuse(state: *const u8, skb: *const u8, guest: Guarded) -> i32 {
    let destination = destination(state, skb, guest);
    if let Some(count) = DROPPED.get_ptr_mut(destination) {
        add(count);
    } else {
        const NEW: u64 = 1;
        /// `BPF_NOEXIST`: another CPU may have been first.
        const ONLY_NEW: u64 = 1;
        if DROPPED.insert(destination, NEW, ONLY_NEW).is_err()
            && let Some(count) = DROPPED.get_ptr_mut(destination)
        {
            add(count);
        }
    }
    if let Some(member) = MEMBERS.get_ptr_mut(guest.slot) {
        // SAFETY: the map's value, aligned and alive as long as the program runs.
        let drops = unsafe { &raw mut (*member).drops };
        add(drops);
    }
    DROP
}

/// Where a packet goes. What cannot be read is zero.
#[inline(always)]
fn destination(state: *const u8, skb: *const u8, guest: Guarded) -> Dropped {
    let family: u8 = read(state, |offsets| &offsets.family);
    let mut dropped = Dropped {
        address: Halves { upper: 0, lower: 0 },
        slot: guest.slot,
        device: guest.device,
        protocol: 0,
        port: 0,
        reserved: 0,
    };
    if family == IPV4 {
        let header: Option<[u32; 5]> = bytes(skb, |offsets| &offsets.network_header, 0);
        if let Some([_, _, protocol, _, address]) = header {
            dropped.address = Halves {
                upper: 0,
                lower: 0xffff << 32 | u64::from(u32::from_be(address)),
            };
            dropped.protocol = u32::from_be(protocol) >> 16 & 0xff;
        }
    } else {
        let header: Option<[u32; 10]> = bytes(skb, |offsets| &offsets.network_header, 0);
        if let Some([_, protocol, _, _, _, _, a, b, c, d]) = header {
            let half =
                |high, low| u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low));
            dropped.address = Halves {
                upper: half(a, b),
                lower: half(c, d),
            };
            dropped.protocol = u32::from_be(protocol) >> 8 & 0xff;
        }
    }
    if matches!(dropped.protocol, TCP | UDP) {
        let ports: Option<[u8; 4]> = bytes(skb, |offsets| &offsets.transport_header, 0);
        if let Some([_, _, high, low]) = ports {
            dropped.port = u16::from_be_bytes([high, low]);
        }
    }
    dropped
}

const TCP: u32 = 6;
const UDP: u32 = 17;

/// Adds one to a counter in a map.
#[inline(always)]
fn add(count: *mut u64) {
    // SAFETY: the caller passes a word of a map's value, aligned and alive as long as the program runs.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
}
