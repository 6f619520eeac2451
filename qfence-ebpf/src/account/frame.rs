//! Counts and records frames.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Comm, Halves, Hook, NO_UID, Outcome, Payload, Protocol, Verdict,
    frame::{NOT_IP, arp::Arp, ethernet::ARP},
    packet::Bytes as _,
    tally::Class,
    verdict::{MONITOR, UNPARSED},
};

use crate::{
    account::{
        count::{count, tally_in_softirq, tally_packet},
        record::{Refusal, record, sight},
    },
    subject::{
        author::Author,
        frame::{self, Frame, device_index, macs, packet_length},
    },
};
use qfence_common::abi::Counter;

/// The parts of a refused frame other than the address.
#[derive(Clone, Copy)]
pub(crate) struct Rest {
    /// The IP protocol, or [`NOT_IP`] with the ethertype.
    pub(crate) protocol: u32,
    pub(crate) port: u16,
    pub(crate) source_port: u16,
}

impl Rest {
    /// Of a frame that is no IP packet, or an unreadable one.
    #[inline(always)]
    pub(crate) const fn of_ethertype(ethertype: u32) -> Self {
        Self {
            protocol: NOT_IP | ethertype,
            port: 0,
            source_port: 0,
        }
    }

    #[inline(always)]
    pub(crate) const fn of_payload(payload: Payload) -> Self {
        Self {
            protocol: payload.protocol().0,
            port: payload.destination_port(),
            source_port: payload.source_port(),
        }
    }

    /// Packs all parts into one word, because there are too few registers.
    #[inline(always)]
    const fn pack(self) -> u64 {
        self.port as u64 | (self.source_port as u64) << 16 | (self.protocol as u64) << 32
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it")]
    const fn unpack(word: u64) -> Self {
        Self {
            port: word as u16,
            source_port: (word >> 16) as u16,
            protocol: (word >> 32) as u32,
        }
    }
}

/// Counts a frame from a guest that is refused, or would be.
#[inline(always)]
pub(crate) fn tally(skb: *mut __sk_buff, outcome: Outcome, protocol: u32, is_judged: bool) {
    let class = Class::number(Protocol(protocol));
    tally_packet(outcome as u32, class, is_judged, packet_length(skb));
}

/// Counts a frame that goes on, from a guest or to it.
#[inline(always)]
pub(crate) fn tally_on(skb: *mut __sk_buff, outcome: Outcome, protocol: u32, is_judged: bool) {
    let class = Class::number(Protocol(protocol));
    tally_in_softirq(outcome as u32, class, is_judged, packet_length(skb));
}

/// Records a frame that is refused, or that would be refused if the policy were enforced.
#[inline(always)]
pub(crate) fn refuse_frame(skb: *mut __sk_buff, to: Halves, verdict: Verdict, rest: Rest) {
    qfence_refuse_frame(skb, to.upper, to.lower, verdict.bits(), rest.pack());
}

/// Returns 0, because a global function must return a value. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_refuse_frame(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    verdict: u32,
    rest: u64,
) -> u32 {
    let rest = Rest::unpack(rest);
    let verdict = Verdict::from_bits(verdict);
    let what = Refusal {
        address: Halves { upper, lower },
        port: u32::from(rest.port),
        protocol: rest.protocol,
        hook: Hook::Frame as u32,
        rule: verdict.rule(),
        source: source(skb, rest.protocol),
        source_port: u32::from(rest.source_port),
    };
    let monitored = verdict.has(MONITOR);
    if verdict.rule() == UNPARSED {
        count(Counter::Unparsed);
    }
    record(&what, &sender(skb), monitored);
    // Only an IP packet has a destination that a rule can name.
    if monitored && rest.protocol & NOT_IP == 0 {
        sight(&what);
    }
    0
}

/// Returns the source address of a frame; zero if it has none.
#[inline(always)]
fn source(skb: *mut __sk_buff, protocol: u32) -> Halves {
    const OF_ARP: u32 = NOT_IP | ARP;
    match protocol {
        OF_ARP => Frame(skb)
            .words(0)
            .and_then(Arp::read)
            .map_or(Halves::NONE, |arp| Halves::from_v4(arp.sender)),
        other if other & NOT_IP == 0 => frame::source(skb),
        _ => Halves::NONE,
    }
}

/// Returns the sender of a frame. No process of the host is. The place of the cgroup has the MAC address.
#[inline(always)]
fn sender(skb: *mut __sk_buff) -> Author {
    Author {
        pid: device_index(skb),
        tid: 0,
        uid: NO_UID,
        flags: 0,
        netns: 0,
        comm: Comm::NONE,
        cgroup: macs(skb).from,
    }
}
