//! Answers TCP by a reset.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Protocol,
    frame::answer::{reset_v4, reset_v6},
    packet::{Bytes as _, Place},
};

use super::{
    V4, V6, layout,
    write::{begin, qfence_no_options_v4, qfence_no_options_v6, send, store},
};
use crate::{hooks::frame::DROP, subject::frame::Frame};

/// Reads an IP header, and the beginning of the payload.
#[inline(always)]
fn begins<const H: usize, const P: usize>(
    skb: *mut __sk_buff,
    place: Place,
) -> Option<([u32; H], [u32; P])> {
    // One after the other: before Linux 6.4 the verifier takes a failed first read for possible after the second one.
    let header = Frame(skb).words(0)?;
    let payload = Frame(skb).words(place.offset())?;
    Some((header, payload))
}

// The functions below are global for the sake of the verifier (see `judge/policy.rs`).

#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_reset_v4(skb: *mut __sk_buff, place: u64, flags: u32) -> i32 {
    let place = Place::from_bits(place);
    let Some((header, segment)) = begins(skb, place) else {
        return DROP;
    };
    let Some(layout) = layout(skb, place, V4) else {
        return DROP;
    };
    let (ip, reset) = reset_v4(&header, &segment, layout);
    let is_written = begin(skb, V4 + layout.room + 20)
        && store(skb, 0, &ip)
        && qfence_no_options_v4(skb, layout.room) != 0
        && store(skb, V4 + layout.room, &reset);
    send(skb, is_written, flags)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_reset_v6(skb: *mut __sk_buff, place: u64, flags: u32) -> i32 {
    let place = Place::from_bits(place);
    let Some((header, segment)) = begins(skb, place) else {
        return DROP;
    };
    let Some(layout) = layout(skb, place, V6) else {
        return DROP;
    };
    let (ip, reset) = reset_v6(&header, &segment, place.offset(), layout);
    let is_written = begin(skb, V6 + layout.room + 20)
        && store(skb, 0, &ip)
        && qfence_no_options_v6(skb, layout.room, Protocol::TCP.0) != 0
        && store(skb, V6 + layout.room, &reset);
    send(skb, is_written, flags)
}
