//! Looks up the socket that would receive what is sent to a destination.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock_tuple,
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use qfence_common::{Halves, own::Made};

use crate::subject::{owner, socket::LISTEN};

/// One end of a connection: an address, and a port in host order.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) address: Halves,
    pub(crate) port: u16,
}

/// The ends of a connection in the order of `struct bpf_sock_tuple`: for IPv4 the two addresses and the ports in three
/// words, for IPv6 in nine.
struct Tuple {
    words: [u32; 9],
    /// In bytes.
    length: u32,
}

impl Tuple {
    /// The length for each family, as `sk_lookup` in net/core/filter.c expects it.
    const V4: u32 = 12;
    const V6: u32 = 36;

    #[inline(always)]
    fn new(from: End, to: End) -> Self {
        let [a, b] = from.port.to_be_bytes();
        let [c, d] = to.port.to_be_bytes();
        let ports = u32::from_ne_bytes([a, b, c, d]);
        let [s0, s1, s2, s3] = words(from.address);
        let [d0, d1, d2, d3] = words(to.address);
        // The words behind a tuple of IPv4 are not read. They are those of IPv6, so that the verifier finds both alike, and
        // checks what follows once.
        let ([w0, w1, w2], length) = if to.address.is_v4() {
            ([s3, d3, ports], Self::V4)
        } else {
            ([s0, s1, s2], Self::V6)
        };
        Self {
            words: [w0, w1, w2, s3, d0, d1, d2, d3, ports],
            length,
        }
    }
}

/// The words of an address, in network order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of it")]
const fn words(address: Halves) -> [u32; 4] {
    [
        ((address.upper >> 32) as u32).to_be(),
        (address.upper as u32).to_be(),
        ((address.lower >> 32) as u32).to_be(),
        (address.lower as u32).to_be(),
    ]
}

/// Returns how the UDP socket was made that would receive a datagram, in the network namespace of the program's context.
/// `None` if there is none, or if it is not of the fence. The context is that of a hook for calls or for packets.
#[inline(always)]
pub(crate) fn udp_receiver(ctx: *mut c_void, from: End, to: End) -> Option<Made> {
    let mut tuple = Tuple::new(from, to);
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
pub(crate) fn tcp_listener(ctx: *mut c_void, from: End, to: End) -> Option<Made> {
    let mut tuple = Tuple::new(from, to);
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
