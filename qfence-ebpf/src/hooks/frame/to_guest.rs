//! Notes frames that leave the host by a device: those to its guest.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use qfence_common::{
    Outcome, Protocol,
    frame::{
        TAG,
        ethernet::{IPV4, IPV6},
    },
};

use super::NEXT;
use crate::{
    account::{flows, frame::tally_on},
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
        if matches!(protocol, Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6)
            && is_made_here(skb)
        {
            qfence_note_host_sent(skb, packet.payload.bits());
        }
        tally_on(skb, Outcome::Received, protocol.0, false);
        flows::note_frame_received(packet.source, packet.payload, packet_length(skb));
    }
    NEXT
}

/// Whether the host has made a frame itself. One that it forwards or bridges has the device by which it came, and may claim
/// any source: a guest could forge what the host seems to have sent, by another guest or by its own way back.
#[inline(always)]
fn is_made_here(skb: *mut __sk_buff) -> bool {
    // SAFETY: the hook's own context; the verifier checks each access.
    let came_by = unsafe { (*skb).ingress_ifindex };
    // SAFETY: as above.
    let tag = unsafe { (*skb).tc_index };
    came_by == 0 && tag & u32::from(TAG) == 0
}
