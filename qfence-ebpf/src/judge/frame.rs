//! Judges frames of guests.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::bpf_ktime_get_boot_ns,
};
use qfence_common::{
    Action, Halves, LookupPath, Payload, Protocol, Verdict, abi,
    frame::{
        self, Device, Gateway, GuestMac, LEARNS_MAC, SERVED,
        arp::Arp,
        control::{self, Control, IGMP, TARGET},
        ethernet::{ARP, IPV4, IPV6, Macs, VLAN, is_group},
    },
    packet::{Bytes as _, tcp_data},
    peer::ANSWERS_FOR_NS,
    verdict::{CHECKSUM, DHCP, FRAME_KIND, HOST, MANY, MONITOR, SPOOFED_MAC, UNPARSED},
};

use crate::{
    account::count::{hit, hit_by_packet},
    judge::{
        of_address,
        peers::changed_ns,
        policy::{judges_standing, monitors, verdict},
        sent::qfence_host_began,
    },
    maps::frame::{FRAME_DEVICES, GATEWAYS, GUEST_MACS, LEARNT_MACS},
    subject::{
        frame::{Frame, address_v6, device_index, ethertype, packet_length, place, word},
        left::left,
        skb::Skb,
    },
};

/// What happens with a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Way {
    /// It is dropped.
    Refused = 0,
    /// It goes on. If it reaches the host nevertheless, it is dropped there.
    Elsewhere = 1,
    /// It goes on, and may reach the host.
    Anywhere = 2,
    /// As [`Way::Anywhere`], although the policy denies it, because the policy is only monitored.
    Monitored = 3,
}

/// The result of judging a frame.
#[derive(Clone, Copy)]
pub(crate) struct FrameJudgement {
    pub(crate) way: Way,
    pub(crate) verdict: Verdict,
    /// Whether a refusal may be answered, as far as the destination is concerned.
    pub(crate) may_be_answered: bool,
    /// Whether it counts as a decision.
    pub(crate) is_decision: bool,
    /// Whether it is an IP packet of which no checksum is left to a device.
    pub(crate) is_complete: bool,
}

const WAY_SHIFT: u32 = 32;
const MAY_BE_ANSWERED: u64 = 1 << 40;
const IS_DECISION: u64 = 1 << 41;

impl FrameJudgement {
    /// Packs it into one word, the return value of a global function, without `is_complete`.
    #[inline(always)]
    const fn pack(self) -> u64 {
        let answered = if self.may_be_answered {
            MAY_BE_ANSWERED
        } else {
            0
        };
        let decision = if self.is_decision { IS_DECISION } else { 0 };
        answered | decision | (self.way as u64) << WAY_SHIFT | self.verdict.bits() as u64
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it")]
    pub(crate) const fn unpack(word: u64) -> Self {
        Self {
            way: match (word >> WAY_SHIFT) as u8 {
                1 => Way::Elsewhere,
                2 => Way::Anywhere,
                3 => Way::Monitored,
                _ => Way::Refused,
            },
            verdict: Verdict::from_bits(word as u32),
            may_be_answered: word & MAY_BE_ANSWERED != 0,
            is_decision: word & IS_DECISION != 0,
            is_complete: false,
        }
    }

    /// A refusal for a reason other than the policy's rules. Nothing answers it.
    #[inline(always)]
    pub(crate) fn against(reason: u32) -> Self {
        let (way, flags) = if monitors() {
            (Way::Monitored, MONITOR)
        } else {
            (Way::Refused, 0)
        };
        Self {
            way,
            verdict: Verdict::new(Action::Deny, reason).with(flags),
            may_be_answered: false,
            is_decision: true,
            is_complete: false,
        }
    }

    /// A refusal of a frame by a device that is none of the fence's. Monitor mode changes nothing.
    #[inline(always)]
    pub(crate) const fn of_unknown_device() -> Self {
        Self {
            way: Way::Refused,
            verdict: Verdict::new(Action::Deny, FRAME_KIND),
            may_be_answered: false,
            is_decision: true,
            is_complete: false,
        }
    }

    /// What goes on whatever the policy says, by an exception with this number.
    #[inline(always)]
    const fn by_exception(way: Way, number: u32) -> Self {
        Self {
            way,
            verdict: Verdict::new(Action::Allow, number),
            may_be_answered: false,
            is_decision: true,
            is_complete: false,
        }
    }
}

/// The rule number of what goes on without a rule, such as neighbour discovery.
const NO_RULE: u32 = qfence_common::verdict::NO_RULE;

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
        // SAFETY: as above.
        if unsafe { (&raw const (*device).index).read_volatile() } == index {
            return Some(device);
        }
    }
    None
}

/// Returns the number of the rule by which a frame is refused whatever it carries; or 0.
#[inline(always)]
pub(crate) fn reason_against_frame(skb: *mut __sk_buff, device: Device) -> u32 {
    // The kernel has taken the outermost tag out of the frame, so `protocol` is that behind it.
    // SAFETY: the hook's own context; the verifier checks each access.
    if unsafe { (*skb).vlan_present } != 0 && unsafe { (*skb).vlan_tci } & VLAN != 0 {
        return FRAME_KIND;
    }
    let kind = ethertype(skb);
    if !matches!(kind, IPV4 | IPV6 | ARP) {
        return FRAME_KIND;
    }
    // The MAC addresses, the ethertype, and the first two bytes of the packet.
    let Some([a, b, c, d]) = first_words(skb) else {
        return UNPARSED;
    };
    let from = Macs::of_words([a, b, c]).from;
    let is_known = from != 0 && from == device.mac;
    if !is_known && qfence_is_of_guest(device_index(skb), from, device.flags) == 0 {
        return SPOOFED_MAC;
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
        None => Skb(skb).words(0),
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
        // SAFETY: the map's value, aligned and alive as long as the program runs. No other address gets this far.
        unsafe { (&raw mut (*known).mac).write_volatile(mac) };
    }
    true
}

#[inline(always)]
fn learnt(device: u32) -> Option<u64> {
    // SAFETY: a program writes the value once. If the loader writes another one, either is the guest's.
    unsafe { LEARNT_MACS.get(device) }.copied()
}

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
fn is_gateway(device: u32, address: Halves) -> bool {
    let key = Gateway {
        address,
        device,
        reserved: 0,
    };
    GATEWAYS.get_ptr(key).is_some()
}

/// Judges an IP packet by its destination and its payload. Every segment of TCP is judged, so that a change of the policy
/// also ends connections. Inlined, because a call takes a tenth of the time that most frames take.
#[inline(always)]
pub(crate) fn judge_frame_to(
    skb: *mut __sk_buff,
    address: Halves,
    payload: Payload,
    flags: u32,
) -> FrameJudgement {
    let left = left(skb);
    if left.is_some() && !left.may_be_written(place(skb)) {
        return FrameJudgement::against(CHECKSUM);
    }
    let Halves { upper, lower } = address;
    let is_dhcp = control::asks_dhcp(ethertype(skb) == IPV6, payload);
    let control = match payload.protocol() {
        Protocol::ICMP | Protocol::ICMPV6 | IGMP => {
            qfence_judge_control(skb, upper, lower, payload.bits())
        }
        Protocol::UDP if is_dhcp => qfence_judge_dhcp(skb, upper, lower, flags),
        _ => ORDINARY,
    };
    let judgement = if control == ORDINARY {
        by_policy(skb, address, payload)
    } else {
        FrameJudgement::unpack(control)
    };
    FrameJudgement {
        is_complete: !left.is_some(),
        ..judgement
    }
}

#[inline(always)]
fn by_policy(skb: *mut __sk_buff, address: Halves, payload: Payload) -> FrameJudgement {
    let (protocol, port) = (payload.protocol(), payload.destination_port());
    let verdict = verdict(LookupPath::Address, address, protocol, port);
    let is_decision = !payload.continues_tcp();
    if verdict.action() == Action::Allow {
        if is_decision {
            hit_by_packet(verdict.rule());
        }
        // The host also receives what is for many. Under a policy that is only monitored, nothing is to be dropped later.
        let reaches_host = verdict.has(HOST) || verdict.has(MANY) || verdict.has(MONITOR);
        return FrameJudgement {
            way: if reaches_host {
                Way::Anywhere
            } else {
                Way::Elsewhere
            },
            verdict,
            may_be_answered: false,
            is_decision,
            is_complete: false,
        };
    }
    let Halves { upper, lower } = address;
    if verdict.has(HOST)
        && !verdict.has(MANY)
        && qfence_host_began(skb, upper, lower, payload.bits()) != 0
    {
        return FrameJudgement {
            is_decision,
            ..FrameJudgement::by_exception(Way::Anywhere, NO_RULE)
        };
    }
    if payload.resets_tcp() && !verdict.has(HOST) && qfence_may_reset(skb) != 0 {
        return FrameJudgement {
            is_decision: false,
            ..FrameJudgement::by_exception(Way::Elsewhere, NO_RULE)
        };
    }
    hit(verdict.rule(), false);
    FrameJudgement {
        way: if verdict.has(MONITOR) {
            Way::Monitored
        } else {
            Way::Refused
        },
        verdict,
        may_be_answered: !verdict.has(MANY),
        is_decision: true,
        is_complete: false,
    }
}

/// Whether a segment that resets a connection may go to where the policy denies: for a while after a change of the policy,
/// so that the remote end of a connection that the change has ended learns of it. It must carry nothing. Returns 0 or 1.
/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_may_reset(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let is_recent = judges_standing() && now < changed_ns().saturating_add(ANSWERS_FOR_NS);
    let is_empty = tcp_data(&Frame(skb), packet_length(skb)) == Some(0);
    (is_recent && is_empty).into()
}

/// Not a packed judgement: the policy decides.
const ORDINARY: u64 = u64::MAX;

/// Judges an ICMP or IGMP message, and returns the packed judgement, or [`ORDINARY`]. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_control(
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

/// Whether a guest may ask for this neighbour, or else be it. As with ARP, it may ask for the host's addresses in its own
/// network only, and be none of them. A link-local address of another link says nothing about the guest's.
#[inline(always)]
fn is_neighbour(device: u32, target: Halves, is_request: bool) -> bool {
    if is_gateway(device, target) {
        return is_request;
    }
    control::is_link_local(target) || !of_address(target).has(HOST)
}

/// Judges a question to a DHCP server, and returns the packed judgement, or [`ORDINARY`]. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_dhcp(skb: *mut __sk_buff, upper: u64, lower: u64, flags: u32) -> u64 {
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
