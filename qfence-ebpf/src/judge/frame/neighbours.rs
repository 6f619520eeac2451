//! Which machines of its network a guest may ask for, and be: ARP, and the addresses in neighbour discovery.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Halves,
    frame::{Gateway, arp::Arp, control},
    packet::Bytes as _,
    verdict::{CHECKSUM, FRAME_KIND, HOST, UNPARSED},
};

use super::judgement::{FrameJudgement, NO_RULE, Way};
use crate::{
    judge::of_address,
    maps::frame::GATEWAYS,
    subject::{
        frame::{Frame, device_index},
        left::left,
    },
};

/// Judges an ARP message, and returns the packed judgement. Global: see `judge/policy.rs`.
///
/// The host answers requests for each of its addresses by any device. It is to answer those for its addresses in the
/// guest's network only. And nobody is to take an address of the host for the guest's.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_judge_arp(skb: *mut __sk_buff, from: u64) -> u64 {
    if left(skb).is_some() {
        return FrameJudgement::against(CHECKSUM).pack();
    }
    let Some(arp) = Frame(skb).words(0).and_then(Arp::read) else {
        return FrameJudgement::against(UNPARSED).pack();
    };
    let (sender, target) = (Halves::from_v4(arp.sender), Halves::from_v4(arp.target));
    // A host that asks whether an address is in use has none yet.
    let claims_host = arp.sender != 0 && of_address(sender).has(HOST);
    let asks_host =
        arp.is_request && of_address(target).has(HOST) && !is_gateway(device_index(skb), target);
    let judgement = if arp.sender_mac != from || claims_host || asks_host {
        FrameJudgement::against(FRAME_KIND)
    } else {
        FrameJudgement::by_exception(Way::Elsewhere, NO_RULE)
    };
    judgement.pack()
}

/// Returns the address that an ARP message asks for, or tells; zero if it is none.
#[inline(always)]
pub(crate) fn arp_target(skb: *mut __sk_buff) -> Halves {
    Frame(skb)
        .words(0)
        .and_then(Arp::read)
        .map_or(Halves::NONE, |arp| Halves::from_v4(arp.target))
}

/// Whether an address is one of the host's in the network of a device's guest.
#[inline(always)]
pub(super) fn is_gateway(device: u32, address: Halves) -> bool {
    let key = Gateway {
        address,
        device,
        reserved: 0,
    };
    GATEWAYS.get_ptr(key).is_some()
}

/// Whether a guest may ask for this neighbour, or else be it. As with ARP, it may ask for the host's addresses in its own
/// network only, and be none of them. A link-local address of another link says nothing about the guest's.
#[inline(always)]
pub(super) fn is_neighbour(device: u32, target: Halves, is_request: bool) -> bool {
    if is_gateway(device, target) {
        return is_request;
    }
    control::is_link_local(target) || !of_address(target).has(HOST)
}
