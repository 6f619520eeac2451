//! Notes frames that leave the host by a device: those to its guest.

use aya_ebpf::programs::TcContext;
use qfence_common::{
    Outcome, Protocol,
    frame::ethernet::{IPV4, IPV6},
};

use super::NEXT;
use crate::{
    account::{flows, frame::tally},
    judge::sent::qfence_note_host_sent,
    subject::frame::{ethertype, packet, packet_length},
};

/// Notes what the host sends to the guest by itself, so that the guest may answer. Refuses nothing.
#[inline(always)]
pub(crate) fn note_frame(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if matches!(ethertype(skb), IPV4 | IPV6)
        && let Some(packet) = packet(skb)
    {
        let protocol = packet.payload.protocol();
        if matches!(protocol, Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6) {
            qfence_note_host_sent(skb, packet.payload.bits());
        }
        tally(skb, Outcome::Received, protocol.0, false);
        flows::note_frame_received(packet.source, packet.payload, packet_length(skb));
    }
    NEXT
}
