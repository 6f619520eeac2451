//! The maps for frames of network devices. The loader makes them one entry long in a fence without devices.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap},
    macros::btf_map,
};
use qfence_common::{
    abi,
    frame::{self, Device, Gateway, GuestMac, Sent, checksum::Offsets},
};

/// The devices of the fence, at the [places](frame::place) for their indices.
#[btf_map]
pub(crate) static FRAME_DEVICES: Array<Device, { abi::FRAME_DEVICES as usize }> = Array::new();

/// The MAC addresses that the guests may use.
#[btf_map]
pub(crate) static GUEST_MACS: HashMap<
    GuestMac,
    u32,
    { abi::GUEST_MACS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The MAC addresses that the first frame of a device determined.
#[btf_map]
pub(crate) static LEARNT_MACS: HashMap<
    u32,
    u64,
    { abi::FRAME_DEVICES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The host's addresses in the guests' networks.
#[btf_map]
pub(crate) static GATEWAYS: HashMap<
    Gateway,
    u32,
    { abi::GATEWAYS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// What the host sent to guests, with the times in nanoseconds since boot.
#[btf_map]
pub(crate) static HOST_SENT: LruHashMap<Sent, u64, { abi::HOST_SENT as usize }> = LruHashMap::new();

/// What happens with refused frames.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static DENY_FRAMES_WITH: Global<u32> = Global::new(frame::ANSWER_PROHIBITED);

/// The offsets in the kernel's `sk_buff`.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static FRAME_OFFSETS: Global<Offsets> = Global::new(Offsets {
    head: 0,
    data: 0,
    start: 0,
    offset: 0,
    summed: 0,
    summed_shift: 0,
    are_known: 0,
    casts: 0,
});
