//! Messages without which a guest has no network: ICMP, IGMP, and questions to DHCP servers.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Halves, Payload, Protocol,
    frame::{
        SERVED,
        control::{self, Control, IGMP, TARGET},
        ethernet::IPV6,
    },
    verdict::{DHCP, FRAME_KIND, UNPARSED},
};

use super::{
    judgement::{FrameJudgement, NO_RULE, Way},
    neighbours::{is_gateway, is_neighbour},
};
use crate::subject::frame::{address_v6, device_index, ethertype, place, word};

/// Not a packed judgement: the policy decides.
pub(super) const ORDINARY: u64 = u64::MAX;

/// Judges an ICMP or IGMP message, and returns the packed judgement, or [`ORDINARY`]. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_judge_control(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
) -> u64 {
    let address = Halves { upper, lower };
    let place = place(skb);
    if !place.is_known() {
        return FrameJudgement::against(UNPARSED).pack();
    }
    if place.is_later_fragment() {
        return ORDINARY;
    }
    let is_v6 = ethertype(skb) == IPV6;
    let kind = word(skb, place.offset()) >> 24;
    let control = match Payload::from_bits(payload).protocol() {
        Protocol::ICMPV6 if is_v6 => control::of_icmp_v6(kind, place, address),
        Protocol::ICMP if !is_v6 => control::of_icmp_v4(kind),
        IGMP if !is_v6 => control::of_igmp(address),
        _ => Control::Ordinary,
    };
    let judgement = match control {
        Control::Ordinary => return ORDINARY,
        Control::OfRouters => FrameJudgement::against(FRAME_KIND),
        Control::Membership => FrameJudgement::by_exception(Way::Elsewhere, NO_RULE),
        Control::RouterSolicitation => FrameJudgement::by_exception(Way::Anywhere, NO_RULE),
        Control::NeighbourSolicitation | Control::NeighbourAdvertisement => {
            let is_request = control == Control::NeighbourSolicitation;
            match address_v6(skb, place.offset() + TARGET) {
                Some(target) if is_neighbour(device_index(skb), target, is_request) => {
                    FrameJudgement::by_exception(Way::Anywhere, NO_RULE)
                }
                Some(_) => FrameJudgement::against(FRAME_KIND),
                None => FrameJudgement::against(UNPARSED),
            }
        }
    };
    judgement.pack()
}

/// Judges a question to a DHCP server, and returns the packed judgement, or [`ORDINARY`]. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_judge_dhcp(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    flags: u32,
) -> u64 {
    let address = Halves { upper, lower };
    if place(skb).is_fragment() {
        return ORDINARY;
    }
    let servers = control::dhcp_servers(ethertype(skb) == IPV6);
    if address != servers && !is_gateway(device_index(skb), address) {
        return ORDINARY;
    }
    // Where the host has no address, its network may have a server.
    let way = if flags & SERVED != 0 {
        Way::Anywhere
    } else {
        Way::Elsewhere
    };
    FrameJudgement::by_exception(way, DHCP).pack()
}
