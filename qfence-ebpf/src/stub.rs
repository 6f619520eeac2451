//! Stands in for the programs of frames until they are there.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, LruHashMap},
    macros::{btf_map, classifier},
    programs::TcContext,
};
use qfence_common::{
    Halves, abi,
    frame::{Device, Gateway, GuestMac, MARK, Sent, TAG},
};

#[btf_map]
static FRAME_DEVICES: HashMap<
    u32,
    Device,
    { abi::FRAME_DEVICES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();
#[btf_map]
static GUEST_MACS: HashMap<
    GuestMac,
    u32,
    { abi::GUEST_MACS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();
#[btf_map]
static LEARNT_MACS: HashMap<
    u32,
    u64,
    { abi::FRAME_DEVICES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();
#[btf_map]
static GATEWAYS: HashMap<Gateway, u32, { abi::GATEWAYS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
#[btf_map]
static HOST_SENT: LruHashMap<Sent, u64, { abi::HOST_SENT as usize }> = LruHashMap::new();

/// A frame from the guest: tagged, and let through.
#[classifier]
fn judge_frame(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the hook's own context.
    let index = unsafe { (*skb).ifindex };
    // SAFETY: the value is only read.
    let Some(device) = (unsafe { FRAME_DEVICES.get(index) }) else {
        return 2;
    };
    // SAFETY: as above.
    unsafe { (*skb).tc_index = u32::from(TAG) | device.slot };
    // SAFETY: as above.
    unsafe { (*skb).mark |= MARK };
    -1
}

/// A frame to the guest.
#[classifier]
fn note_frame(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the hook's own context.
    let index = unsafe { (*skb).ifindex };
    let key = Gateway {
        address: Halves::NONE,
        device: index,
        reserved: 0,
    };
    let mac = GuestMac {
        device: index,
        reserved: 0,
        mac: 0,
    };
    let sent = Sent {
        host: Halves::NONE,
        guest: Halves::NONE,
        host_port: 0,
        guest_port: 0,
        protocol: 0,
        device: index,
        reserved: 0,
    };
    if GATEWAYS.get_ptr(key).is_some()
        && GUEST_MACS.get_ptr(mac).is_some()
        && LEARNT_MACS.get_ptr(index).is_some()
        && HOST_SENT.get_ptr(sent).is_some()
    {
        return 2;
    }
    -1
}
