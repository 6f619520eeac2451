//! Looks up the socket that would receive what is sent to a destination.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_tuple},
    helpers::generated::{
        bpf_get_listener_sock, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
        bpf_skc_lookup_tcp,
    },
};
use qfence_common::{Halves, own::Made, packet::Bytes as _};

use crate::subject::{
    owner,
    skb::Skb,
    socket::{LISTEN, NEW_SYN_RECV},
};

/// The ends of a connection in the order of `struct bpf_sock_tuple`, in network order: for IPv4 the two addresses and the
/// ports in three words, for IPv6 in nine.
pub(crate) struct Tuple {
    words: [u32; 9],
    /// In bytes.
    length: u32,
}

impl Tuple {
    /// The length for each family, as `sk_lookup` in net/core/filter.c expects it.
    const V4: u32 = 12;
    const V6: u32 = 36;

    /// Both ends have this address.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "halves of it")]
    pub(crate) const fn within(address: Halves, from: u16, to: u16) -> Self {
        let Halves { upper, lower } = address;
        let (a, b) = (((upper >> 32) as u32).to_be(), (upper as u32).to_be());
        let (c, d) = (((lower >> 32) as u32).to_be(), (lower as u32).to_be());
        let ports = ports(from, to);
        // The words behind a tuple of IPv4 are not read. They are those of IPv6, so that the verifier finds both alike, and
        // checks what follows once.
        let ([w0, w1, w2], length) = if address.is_v4() {
            ([d, d, ports], Self::V4)
        } else {
            ([a, b, c], Self::V6)
        };
        Self {
            words: [w0, w1, w2, d, a, b, c, d, ports],
            length,
        }
    }

    /// The ends of a packet, or else with its source as the destination. `None` if it is no IP packet.
    #[inline(always)]
    pub(crate) fn of_packet(
        skb: *mut __sk_buff,
        from: u16,
        to: u16,
        is_answer: bool,
    ) -> Option<Self> {
        let ports = ports(from, to);
        let [first] = Skb(skb).words(0)?;
        if first >> 28 == 4 {
            let [source, destination] = Skb(skb).words(12)?.map(u32::to_be);
            let (from, to) = turn((source, destination), is_answer);
            return Some(Self {
                words: [from, to, ports, 0, 0, 0, 0, 0, 0],
                length: Self::V4,
            });
        }
        let [a, b, c, d, e, f, g, h] = Skb(skb).words(8)?.map(u32::to_be);
        let ([a, b, c, d], [e, f, g, h]) = turn(([a, b, c, d], [e, f, g, h]), is_answer);
        Some(Self {
            words: [a, b, c, d, e, f, g, h, ports],
            length: Self::V6,
        })
    }
}

/// The ports of a tuple.
#[inline(always)]
const fn ports(from: u16, to: u16) -> u32 {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn turn<T>((source, destination): (T, T), is_answer: bool) -> (T, T) {
    if is_answer {
        (destination, source)
    } else {
        (source, destination)
    }
}

/// Returns how the UDP socket was made that would receive a datagram, in the network namespace of the program's context.
/// `None` if there is none, or if it is not of the fence. The context is that of a hook for calls or for packets.
#[inline(always)]
pub(crate) fn udp_receiver(ctx: *mut c_void, mut tuple: Tuple) -> Option<Made> {
    let place = tuple.words.as_mut_ptr().cast::<bpf_sock_tuple>();
    // SAFETY: the hook's own context, and a tuple of this length.
    let found = unsafe { bpf_sk_lookup_udp(ctx, place, tuple.length, u64::MAX, 0) };
    if found.is_null() {
        return None;
    }
    let made = owner::made(found);
    // SAFETY: the socket that was looked up, which is not used any more.
    unsafe { bpf_sk_release(found.cast()) };
    made
}

/// Returns how the TCP listener was made that would accept a connection, in the network namespace of the program's
/// context. `None` if nobody listens there, or if the listener is not of the fence. While a connection is being opened,
/// its request counts as its listener (`__bpf_sk_lookup` in net/core/filter.c).
///
/// The context is that of a hook for calls or for packets.
#[inline(always)]
pub(crate) fn tcp_listener(ctx: *mut c_void, mut tuple: Tuple) -> Option<Made> {
    let place = tuple.words.as_mut_ptr().cast::<bpf_sock_tuple>();
    // A negative number is the namespace of the context.
    // SAFETY: the hook's own context, and a tuple of this length.
    let found = unsafe { bpf_sk_lookup_tcp(ctx, place, tuple.length, u64::MAX, 0) };
    if found.is_null() {
        return None;
    }
    // SAFETY: a full socket, not null.
    let state = unsafe { (*found).state };
    let made = owner::made(found);
    // SAFETY: the socket that was looked up, which is not used any more.
    unsafe { bpf_sk_release(found.cast()) };
    made.filter(|_| state == LISTEN)
}

/// Returns how the TCP listener was made that has answered the SYN of a connection, in the network namespace of a packet.
/// `None` if it is not of the fence, or has answered with a SYN cookie: then it keeps no request for the connection
/// (`tcp_conn_request` in net/ipv4/tcp_input.c), and whoever listens when the third segment arrives can accept it.
///
/// A request for a connection to a link-local address has the device of that address (`tcp_v6_init_req` in
/// net/ipv6/tcp_ipv6.c), and the look-up has that of the packet, which is loopback. So it is not found.
#[inline(always)]
pub(crate) fn answering_listener(skb: *mut __sk_buff, mut tuple: Tuple) -> Option<Made> {
    let place = tuple.words.as_mut_ptr().cast::<bpf_sock_tuple>();
    // SAFETY: the hook's own packet, and a tuple of this length.
    let found = unsafe { bpf_skc_lookup_tcp(skb.cast(), place, tuple.length, u64::MAX, 0) };
    if found.is_null() {
        return None;
    }
    // SAFETY: a socket or a request, not null; both have a state.
    let state = unsafe { (*found).state };
    // SAFETY: the same.
    let listener = unsafe { bpf_get_listener_sock(found) };
    let made = if state == NEW_SYN_RECV && !listener.is_null() {
        owner::made(listener)
    } else {
        None
    };
    // SAFETY: what was looked up, which is not used any more, nor is its listener.
    unsafe { bpf_sk_release(found.cast()) };
    made
}
