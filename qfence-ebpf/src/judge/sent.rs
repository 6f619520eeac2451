//! What the host sent to the guests by itself, so that their answers reach it.
//!
//! TCP needs no memory: the host's socket is looked up. UDP and echo requests are noted when they leave for the guest.
//! Only frames that the host has made itself make a note: none that it forwards or bridges (`hooks/frame/to_guest.rs`).

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, bpf_sock_tuple},
    helpers::{bpf_ktime_get_boot_ns, bpf_sk_release, bpf_skc_lookup_tcp},
};
use qfence_common::{
    Halves, Payload, Protocol,
    frame::{AWAITED_FOR_NS, Sent, control, ethernet::IPV6},
    packet::{Bytes as _, read_addresses},
    verdict::{HOST, MANY},
};

use crate::{
    judge::{of_address, peers::changed_ns},
    maps::frame::HOST_SENT,
    subject::{
        frame::{Frame, device_index, ethertype, place, source, word},
        socket::LISTEN,
    },
};

/// TCP_NEW_SYN_RECV (net/tcp_states.h): a connection that a listener has not accepted yet.
const NEW_SYN_RECV: u32 = 12;

/// The network namespace of the device (`BPF_F_CURRENT_NETNS` in linux/bpf.h).
const OF_THE_DEVICE: u64 = u64::MAX;

/// How old a note must be to be written again, in nanoseconds: each write to a word costs the other CPUs a cache miss.
const RENEWED_AFTER_NS: u64 = 1_000_000_000;

/// Whether a frame to an address of the host belongs to what the host began. Returns 0 or 1. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_host_began(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
) -> u32 {
    let payload = Payload::from_bits(payload);
    let host = Halves { upper, lower };
    // No socket of IPv4 sends such packets.
    if ethertype(skb) == IPV6 && host.is_v4() {
        return 0;
    }
    let began = match payload.protocol() {
        Protocol::TCP => payload.continues_tcp() && has_socket(skb, payload),
        Protocol::UDP => is_awaited(&Sent {
            host,
            guest: source(skb),
            host_port: payload.destination_port(),
            guest_port: payload.source_port(),
            protocol: Protocol::UDP.0,
            device: device_index(skb),
            reserved: 0,
        }),
        Protocol::ICMP | Protocol::ICMPV6 => echo(skb, false).is_some_and(|identifier| {
            is_awaited(&Sent {
                host,
                guest: source(skb),
                host_port: identifier,
                guest_port: 0,
                protocol: payload.protocol().0,
                device: device_index(skb),
                reserved: 0,
            })
        }),
        _ => false,
    };
    began.into()
}

/// Whether the host has a connection for a segment from a guest, and has opened it. If something listens at the
/// connection's port of the host, the guest may have opened it under another policy, so it does not count. A segment
/// that resets a connection is let through to any, so that the host learns of its end.
#[inline(always)]
fn has_socket(skb: *mut __sk_buff, payload: Payload) -> bool {
    match qfence_state(
        skb,
        u32::from(payload.source_port()) << 16 | u32::from(payload.destination_port()),
    ) {
        NONE | LISTEN | NEW_SYN_RECV => false,
        _ if payload.resets_tcp() => true,
        // No connection has port 0, so only a listener is found.
        _ => qfence_state(skb, payload.destination_port().into()) != LISTEN,
    }
}

/// No state of a socket.
const NONE: u32 = 0;

/// Returns the state of the host's TCP socket for a packet with these ports, the source port in the upper half;
/// [`NONE`] if there is no socket. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_state(skb: *mut __sk_buff, ports: u32) -> u32 {
    let packet = Frame(skb);
    let ports = ports.to_be();
    if ethertype(skb) == IPV6 {
        let Some(words) = packet.words::<8>(8) else {
            return NONE;
        };
        let [a, b, c, d, e, f, g, h] = words.map(u32::to_be);
        return state(skb, &[a, b, c, d, e, f, g, h, ports]);
    }
    let Some(words) = packet.words::<2>(12) else {
        return NONE;
    };
    let [source, destination] = words.map(u32::to_be);
    state(skb, &[source, destination, ports])
}

/// Looks a socket up by a `struct bpf_sock_tuple`: addresses and ports, in network order. The kernel takes the family
/// from the length.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "36 bytes at most")]
fn state<const N: usize>(skb: *mut __sk_buff, tuple: &[u32; N]) -> u32 {
    let length = size_of_val(tuple) as u32;
    let tuple = tuple.as_ptr().cast_mut().cast::<bpf_sock_tuple>();
    // SAFETY: the tuple has `length` bytes.
    let socket = unsafe { bpf_skc_lookup_tcp(skb.cast(), tuple, length, OF_THE_DEVICE, 0) };
    if socket.is_null() {
        return NONE;
    }
    // SAFETY: a socket, not null, and referenced until it is released below.
    let state = unsafe { (*socket).state };
    // SAFETY: as above.
    unsafe { bpf_sk_release(socket.cast()) };
    state
}

/// Returns the identifier of an echo request, or else of an echo, in a frame; `None` if it is neither, or a fragment
/// without a header.
#[inline(always)]
fn echo(skb: *mut __sk_buff, is_request: bool) -> Option<u16> {
    let place = place(skb);
    if !place.is_known() || place.is_later_fragment() {
        return None;
    }
    let is_v6 = ethertype(skb) == IPV6;
    let kind = word(skb, place.offset()) >> 24;
    let is_echo = if is_request {
        control::is_echo_request(is_v6, kind)
    } else {
        control::is_echo_reply(is_v6, kind)
    };
    let identifier = word(skb, place.offset() + control::IDENTIFIER) >> 16;
    if is_echo {
        u16::try_from(identifier).ok()
    } else {
        None
    }
}

/// Whether the host sent this recently, and under the policy in force.
#[inline(always)]
fn is_awaited(sent: &Sent) -> bool {
    let Some(then) = noted(sent) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    then > changed_ns() && now.wrapping_sub(then) < AWAITED_FOR_NS
}

/// Returns the time of a note.
#[inline(always)]
fn noted(sent: &Sent) -> Option<u64> {
    let time = HOST_SENT.get_ptr(sent)?;
    // SAFETY: the map's value, aligned and alive as long as the program runs; one word. If another CPU gives the place to
    // another note meanwhile, the time is that of a packet that the host sent, too.
    Some(unsafe { time.read_volatile() })
}

/// Notes a frame to a guest, if the host itself sent it and an answer may come. Returns 0, because a global function must
/// return a value. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_note_host_sent(skb: *mut __sk_buff, payload: u64) -> u32 {
    let payload = Payload::from_bits(payload);
    let (host, guest) = read_addresses(&Frame(skb));
    if !of_address(host).has(HOST) || of_address(guest).has(MANY) {
        return 0;
    }
    let (host_port, guest_port) = match payload.protocol() {
        Protocol::UDP => (payload.source_port(), payload.destination_port()),
        _ => match echo(skb, true) {
            Some(identifier) => (identifier, 0),
            None => return 0,
        },
    };
    let sent = Sent {
        host,
        guest,
        host_port,
        guest_port,
        protocol: payload.protocol().0,
        device: device_index(skb),
        reserved: 0,
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let is_recent = noted(&sent)
        .is_some_and(|then| then > changed_ns() && now.wrapping_sub(then) < RENEWED_AFTER_NS);
    if !is_recent {
        // If there is no room, the guest's answer is refused.
        let _ = HOST_SENT.insert(sent, now, u64::from(BPF_ANY));
    }
    0
}
