//! Answers refused frames: the frame itself becomes the answer, and leaves by the device by which it came.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::{
        bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
        bpf_skb_vlan_pop,
    },
};
use qfence_common::{
    Halves, Payload, Protocol,
    frame::{
        ANSWER_PROHIBITED, ANSWER_UNREACHABLE, REVERSED,
        answer::{
            Layout, MOST_OPTIONS_V6, NO_OPTIONS, PORT, PROHIBITED, Quoted, Unreachable,
            no_options_v6, reset_v4, reset_v6, unreachable_v4, unreachable_v6,
        },
        control::is_echo_request,
        ethernet::{HEADER, IPV6, Macs, is_group},
    },
    packet::{Bytes as _, Place},
    verdict::MANY,
};

use super::{
    DROP,
    plain::{OTHER, answer_plain},
};
use crate::{
    judge::of_address,
    maps::frame::DENY_FRAMES_WITH,
    subject::{
        frame::{Frame, device_index, ethertype, macs, place, source, word},
        left::left,
    },
};

/// Answers a refused IP packet, if it may be answered. `is_complete` says that no checksum of the frame is left to a device.
/// Returns the return value of the hook.
#[inline(always)]
pub(super) fn answer(skb: *mut __sk_buff, payload: Payload, is_complete: bool, flags: u32) -> i32 {
    if !matches!(
        DENY_FRAMES_WITH.load(),
        ANSWER_PROHIBITED | ANSWER_UNREACHABLE
    ) {
        return DROP;
    }
    if is_complete {
        let answered = answer_plain(skb, payload, flags);
        if answered != OTHER {
            return answered;
        }
    }
    qfence_answer(skb, payload.bits(), flags)
}

/// Whether a packet that one machine sends to one may be answered. Nothing is that many receive, and nothing without a single
/// sender (RFC 1122, 3.2.2; RFC 4443, 2.4).
#[inline(always)]
pub(super) fn may_be_answered(macs: Macs, source: Halves) -> bool {
    !is_group(macs.to) && !source.is_unspecified() && !of_address(source).has(MANY)
}

/// Whether a packet other than of TCP is answered. Of ICMP only an echo request is: the others are errors, answers, or about
/// the network. `first` is the first word of the payload.
#[inline(always)]
pub(super) fn is_answered(is_v6: bool, protocol: u32, first: u32) -> bool {
    match Protocol(protocol) {
        Protocol::ICMP | Protocol::ICMPV6 => is_echo_request(is_v6, first >> 24),
        _ => true,
    }
}

/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_answer(skb: *mut __sk_buff, payload: u64, flags: u32) -> i32 {
    let payload = Payload::from_bits(payload);
    let is_v6 = ethertype(skb) == IPV6;
    let protocol = payload.protocol();
    let place = place(skb);
    if !place.is_known() || place.is_later_fragment() || !may_be_answered(macs(skb), source(skb)) {
        return DROP;
    }
    match protocol {
        Protocol::TCP if payload.resets_tcp() => DROP,
        Protocol::TCP if is_v6 => qfence_reset_v6(skb, place.bits(), flags),
        Protocol::TCP => qfence_reset_v4(skb, place.bits(), flags),
        _ if !is_answered(is_v6, protocol.0, word(skb, place.offset())) => DROP,
        _ => error(skb, is_v6, place, flags),
    }
}

/// The code of an ICMP error.
#[inline(always)]
pub(super) fn code() -> Unreachable {
    if DENY_FRAMES_WITH.load() == ANSWER_UNREACHABLE {
        PORT
    } else {
        PROHIBITED
    }
}

/// Returns the layout of an answer to a packet whose IP header has `header` bytes without options; `None` if there is none. A
/// device writes a checksum that was left to it at the place where it was, so the payload of the answer begins where that
/// of the packet began.
#[inline(always)]
fn layout(skb: *mut __sk_buff, place: Place, header: u32) -> Option<Layout> {
    let left = left(skb);
    if left.is_some() && !left.is_of_payload(place) {
        return None;
    }
    Some(Layout {
        room: if left.is_some() {
            place.offset().saturating_sub(header)
        } else {
            0
        },
        is_partial: left.is_some(),
    })
}

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
extern "C" fn qfence_reset_v4(skb: *mut __sk_buff, place: u64, flags: u32) -> i32 {
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
extern "C" fn qfence_reset_v6(skb: *mut __sk_buff, place: u64, flags: u32) -> i32 {
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

/// The most bytes of a packet that an ICMP error quotes, and the least: an IPv4 header, and eight bytes.
const MOST_QUOTED: u32 = 127;
const LEAST_QUOTED: u32 = 28;

/// Words for what is quoted. There is room for whatever [`bounded`] returns.
type Words = [u32; 39];

const _: () = assert!(size_of::<Words>() >= 127 + 28);

/// Returns a length with bounds that the verifier sees. Before Linux 6.8 it learns nothing from a comparison with zero, and a
/// helper takes no length that may be zero.
#[inline(always)]
const fn bounded(length: u32) -> u32 {
    (length.wrapping_sub(LEAST_QUOTED) & 127) + LEAST_QUOTED
}

/// Answers by an ICMP error. It quotes all headers, and eight bytes behind them: by less the sender would not find its
/// socket.
#[inline(always)]
fn error(skb: *mut __sk_buff, is_v6: bool, place: Place, flags: u32) -> i32 {
    let header = if is_v6 { V6 } else { V4 };
    let Some(layout) = layout(skb, place, header) else {
        return DROP;
    };
    let length = place.offset() + 8;
    if length > MOST_QUOTED {
        return DROP;
    }
    let sum = qfence_sum_of_quoted(skb, length);
    if sum == u64::MAX || qfence_quote(skb, header + layout.room + 8, length) == 0 {
        return DROP;
    }
    let length = u64::from(length) << 32 | u64::from(flags);
    if is_v6 {
        qfence_unreachable_v6(skb, layout.bits(), sum, length)
    } else {
        qfence_unreachable_v4(skb, layout.bits(), sum, length)
    }
}

/// Returns the sum of the words that are quoted; `u64::MAX` if the packet has fewer bytes.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_sum_of_quoted(skb: *mut __sk_buff, length: u32) -> u64 {
    let mut words: Words = [0; 39];
    if !read_beginning(skb, &mut words, length) {
        return u64::MAX;
    }
    let mut sum = 0;
    for word in &words {
        sum += u64::from(u32::from_be(*word));
    }
    sum
}

/// Makes the frame an answer whose packet ends in what is quoted, which begins at an offset. The rest of the packet is to be
/// written. Returns 0 if the kernel does not do it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_quote(skb: *mut __sk_buff, offset: u32, length: u32) -> u32 {
    let mut words: Words = [0; 39];
    if !read_beginning(skb, &mut words, length) || !begin(skb, offset + length) {
        return 0;
    }
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    let (from, length) = (words.as_ptr().cast(), bounded(length));
    // SAFETY: the array has at least as many bytes.
    let failed = unsafe { bpf_skb_store_bytes(skb, HEADER + offset, from, length, flags) };
    (failed == 0).into()
}

/// Reads the first bytes of a packet, as words in network order. Returns false if it has fewer.
#[inline(always)]
fn read_beginning(skb: *mut __sk_buff, words: &mut Words, length: u32) -> bool {
    let length = bounded(length);
    // SAFETY: the array has at least as many bytes.
    unsafe { bpf_skb_load_bytes(skb.cast(), HEADER, words.as_mut_ptr().cast(), length) == 0 }
}

/// `rest` has the length of what is quoted in its upper half, and the flags of the device.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_v4(skb: *mut __sk_buff, layout: u64, sum: u64, rest: u64) -> i32 {
    let layout = Layout::from_bits(layout);
    let (quoted, flags) = unpack(sum, rest);
    let message = V4 + layout.room;
    let Some(header) = Frame(skb).words(message + 8) else {
        return DROP;
    };
    let (ip, error) = unreachable_v4(&header, quoted, code(), layout);
    let is_written = store(skb, 0, &ip)
        && qfence_no_options_v4(skb, layout.room) != 0
        && store(skb, message, &error);
    send(skb, is_written, flags)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_v6(skb: *mut __sk_buff, layout: u64, sum: u64, rest: u64) -> i32 {
    let layout = Layout::from_bits(layout);
    let (quoted, flags) = unpack(sum, rest);
    let message = V6 + layout.room;
    let Some(header) = Frame(skb).words(message + 8) else {
        return DROP;
    };
    let (ip, error) = unreachable_v6(&header, quoted, code(), layout);
    let is_written = store(skb, 0, &ip)
        && qfence_no_options_v6(skb, layout.room, Protocol::ICMPV6.0) != 0
        && store(skb, message, &error);
    send(skb, is_written, flags)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of it")]
const fn unpack(sum: u64, rest: u64) -> (Quoted, u32) {
    let length = (rest >> 32) as u32;
    (Quoted { length, sum }, rest as u32)
}

/// The lengths of IP headers without options.
const V4: u32 = 20;
const V6: u32 = 40;

/// Fills the room behind an IPv4 header. Returns 0 if the kernel does not do it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_no_options_v4(skb: *mut __sk_buff, room: u32) -> u32 {
    // A header has at most forty bytes of options.
    for word in 0..10 {
        if 4 * word >= room {
            return 1;
        }
        if !store(skb, V4 + 4 * word, &[NO_OPTIONS]) {
            return 0;
        }
    }
    (room <= 40).into()
}

/// Fills the room behind an IPv6 header. Returns 0 if the kernel does not do it, or if there is too much room.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_no_options_v6(skb: *mut __sk_buff, room: u32, protocol: u32) -> u32 {
    if !room.is_multiple_of(8) || room > 8 * MOST_OPTIONS_V6 {
        return 0;
    }
    for header in 0..MOST_OPTIONS_V6 {
        if 8 * header >= room {
            break;
        }
        let is_last = 8 * header + 8 == room;
        let words = no_options_v6(is_last.then_some(protocol));
        if !store(skb, V6 + 8 * header, &words) {
            return 0;
        }
    }
    1
}

/// Makes the frame one for its sender, with an IP packet of so many bytes. Returns false if the kernel does not do it.
#[inline(always)]
fn begin(skb: *mut __sk_buff, length: u32) -> bool {
    let addresses: [u32; 3] = Macs::answer(macs(skb)).map(u32::to_be);
    resize(skb, length) && write(skb, 0, &addresses)
}

/// Gives the frame an IP packet of so many bytes, which are to be written. Returns false if the kernel does not do it.
#[inline(always)]
pub(super) fn resize(skb: *mut __sk_buff, length: u32) -> bool {
    // A tag with a priority, which the kernel has taken out of the frame, would be put into the answer.
    // SAFETY: the hook's own context.
    if unsafe { (*skb).vlan_present } != 0 && unsafe { bpf_skb_vlan_pop(skb) } != 0 {
        return false;
    }
    // It also makes the bytes writable, and ends what was divided into segments.
    // SAFETY: the hook's own context.
    unsafe { bpf_skb_change_tail(skb, HEADER + length, 0) == 0 }
}

/// Sends a frame to where it came from, if the answer was written.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a value of the hook")]
pub(super) fn send(skb: *mut __sk_buff, is_written: bool, flags: u32) -> i32 {
    if !is_written {
        return DROP;
    }
    let way = if flags & REVERSED != 0 {
        u64::from(BPF_F_INGRESS)
    } else {
        0
    };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(device_index(skb), way) as i32 }
}

/// Writes words into the packet in a frame. Returns false if the kernel does not do it.
#[inline(always)]
fn store<const N: usize>(skb: *mut __sk_buff, offset: u32, words: &[u32; N]) -> bool {
    write(skb, HEADER + offset, &words.map(u32::to_be))
}

/// Writes words in network order into a frame. Returns false if the kernel does not do it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a hundred bytes")]
fn write<const N: usize>(skb: *mut __sk_buff, offset: u32, words: &[u32; N]) -> bool {
    let length = size_of::<[u32; N]>() as u32;
    write_bytes(skb, offset, words.as_ptr().cast(), length)
}

/// Writes `length` bytes into a frame, which `bytes` must have. Returns false if the kernel does not do it.
#[inline(always)]
pub(super) fn write_bytes(skb: *mut __sk_buff, offset: u32, bytes: *const u8, length: u32) -> bool {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the caller has so many bytes; the verifier checks that.
    unsafe { bpf_skb_store_bytes(skb, offset, bytes.cast(), length, flags) == 0 }
}
