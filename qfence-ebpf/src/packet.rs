//! Packets: judges those that leave, and sees to those that arrive from the host.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_sk_fullsock, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use qfence_common::{
    Action, Hook, Packet, Path, Protocol, Way,
    abi::Counter,
    packet::{Bytes, parse},
    verdict::{MANY, NO_RULE, UNPARSED},
};

use crate::{
    destination::Destination,
    judge::{PROCEED, REJECT, judge, monitors, of_address},
    maps::ALLOW_RAW,
    owner, peers,
    record::{Refusal, count, refuse, traffic},
    socket::{has_connected_elsewhere, is_raw},
};

/// The loopback device's index, in every network namespace (`LOOPBACK_IFINDEX` in
/// include/net/flow.h; `dev_index_reserve` sees to it that it is the first).
const LOOPBACK: u32 = 1;

/// A packet for this host (`PACKET_HOST` in linux/if_packet.h), as its link layer says.
const PACKET_HOST: u32 = 0;

const EGRESS: u32 = Hook::Egress as u32;
const INGRESS: u32 = Hook::Ingress as u32;

/// Judges a packet that leaves: through the loopback device it goes to the host, whatever its
/// address; through another the address says.
#[inline(always)]
pub(crate) fn judge_egress(ctx: &SkBuffContext) -> i32 {
    let length = ctx.len();
    if judge_leaving(ctx) == PROCEED {
        traffic(Way::Sent, Some(length));
        return PROCEED;
    }
    traffic(Way::Refused, Some(length));
    REJECT
}

#[inline(always)]
fn judge_leaving(ctx: &SkBuffContext) -> i32 {
    let Some(packet) = read(ctx) else {
        return drop_unparsed(ctx);
    };
    let socket = whole_socket(ctx);
    if packet.continues_tcp && !is_ours_to_judge(ctx, socket) {
        return PROCEED;
    }
    let to = destination(ctx, &packet, socket);
    let judgement = judge::<EGRESS, _>(ctx, &to);
    if judgement.action == Action::Allow {
        return PROCEED;
    }
    let source = (packet.source, packet.source_port);
    judgement.refuse(EGRESS, &to, source, &owner::author(ctx.skb.skb, socket))
}

/// Whether a TCP segment that opens nothing is judged all the same: one that a raw socket made up, and
/// one of a connection out of the fence whose peer's address has turned local since: what connected to the
/// host was let.
#[inline(always)]
fn is_ours_to_judge(ctx: &SkBuffContext, socket: *mut bpf_sock) -> bool {
    (ALLOW_RAW.load() != 0 && is_raw(socket))
        || (is_loopback(ctx) && has_connected_elsewhere(socket))
}

#[inline(always)]
fn destination(ctx: &SkBuffContext, packet: &Packet, socket: *mut bpf_sock) -> Destination {
    Destination {
        address: packet.destination,
        port: packet.destination_port,
        protocol: packet.protocol,
        path: if is_loopback(ctx) {
            Path::Loopback
        } else {
            Path::Address
        },
        socket,
    }
}

#[inline(always)]
fn drop_unparsed(ctx: &SkBuffContext) -> i32 {
    count(Counter::Unparsed);
    let what = Refusal {
        address: [0; 16],
        port: 0,
        protocol: 0,
        hook: EGRESS,
        rule: UNPARSED,
        source: [0; 16],
        source_port: 0,
    };
    let author = owner::author(ctx.skb.skb, whole_socket(ctx));
    refuse(&what, &author, monitors())
}

/// Judges a packet that arrives over loopback: the sender of a datagram is remembered, for the port
/// that it was sent to, and an answer to a ping that would be refused is dropped.
///
/// Such an answer there is: the kernel loops IPv4 multicast and broadcast back before the egress hook
/// runs (`ip_mc_output` clones the packet, and a clone has no socket), and a ping passes no other.
#[inline(always)]
pub(crate) fn judge_ingress(ctx: &SkBuffContext) -> i32 {
    let length = ctx.len();
    if judge_arriving(ctx) == PROCEED {
        traffic(Way::Received, Some(length));
        return PROCEED;
    }
    traffic(Way::Refused, Some(length));
    REJECT
}

#[inline(always)]
fn judge_arriving(ctx: &SkBuffContext) -> i32 {
    // SAFETY: the hook's own context; the verifier checks each access.
    let link_layer = unsafe { (*ctx.skb.skb).pkt_type };
    if !is_loopback(ctx) {
        return PROCEED;
    }
    let Some(packet) = read(ctx) else {
        return PROCEED;
    };
    let socket = whole_socket(ctx);
    match packet.protocol {
        Protocol::UDP if link_layer == PACKET_HOST && is_for_one(&packet) => {
            if let Some(peer) = peers::peer(socket, packet.source, packet.source_port) {
                peers::remember(&peer);
            }
            PROCEED
        }
        // A raw socket overhears what is not for it.
        Protocol::ICMP | Protocol::ICMPV6 if !is_raw(socket) => {
            let from = Destination {
                address: packet.source,
                port: 0,
                protocol: packet.protocol,
                path: Path::Loopback,
                socket,
            };
            let judgement = judge::<INGRESS, _>(ctx, &from);
            if judgement.action == Action::Allow {
                return PROCEED;
            }
            let to = (packet.destination, 0);
            judgement.refuse(INGRESS, &from, to, &owner::author(ctx.skb.skb, socket))
        }
        _ => PROCEED,
    }
}

/// Whether the packet was sent to one address. Whoever sends to many has not spoken to the fence: to
/// answer would be a way to a service that merely announces itself. On loopback the link layer does
/// not tell, for all its addresses are zero.
#[inline(always)]
fn is_for_one(packet: &Packet) -> bool {
    let verdict = of_address(packet.destination);
    verdict.rule() != NO_RULE && !verdict.has(MANY)
}

/// Takes a packet apart.
#[inline(always)]
fn read(ctx: &SkBuffContext) -> Option<Packet> {
    let mut packet = Packet::UNKNOWN;
    read_into(ctx.skb.skb, &mut packet).then_some(packet)
}

/// Takes a packet apart; whether it could be.
///
/// A function of its own: what it has on the stack and what is put on record do not fit into one frame.
#[inline(never)]
fn read_into(skb: *mut __sk_buff, packet: &mut Packet) -> bool {
    parse(&Skb(skb), packet).is_some()
}

#[inline(always)]
fn is_loopback(ctx: &SkBuffContext) -> bool {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).ifindex == LOOPBACK }
}

/// The socket behind a packet, if there is a whole one: not so for the first answer to a SYN, and
/// after a close. Otherwise null.
#[inline(always)]
fn whole_socket(ctx: &SkBuffContext) -> *mut bpf_sock {
    // SAFETY: as above.
    let union = unsafe { (*ctx.skb.skb).__bindgen_anon_2 };
    // SAFETY: all members of the union are this pointer.
    let socket = unsafe { union.sk };
    if socket.is_null() {
        return socket;
    }
    // SAFETY: a socket, not null.
    unsafe { bpf_sk_fullsock(socket) }
}

/// A packet's bytes, wherever its buffer has them. At both hooks they begin with the IP header.
struct Skb(*mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let length = u32::try_from(N).ok()?;
        let mut bytes = [0; N];
        // SAFETY: `bytes` has room for `N` bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), length) };
        (failed == 0).then_some(bytes)
    }
}
