//! Reads the destination of a call from the hook's context.

use aya_ebpf::{bindings::bpf_sock, programs::SockAddrContext};
use qfence_common::{Halves, LookupPath, Protocol};

/// The destination of a call or a packet.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) address: Halves,
    /// In host order.
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// The path to the destination, as far as it is known.
    pub(crate) path: LookupPath,
}

/// Reads the destination from a context of connect4 or sendmsg4.
#[inline(always)]
pub(crate) fn destination4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the kernel passes a valid `bpf_sock_addr`; the verifier checks each access.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    with_address(ctx, Halves::from_v4(u32::from_be(ip)))
}

/// Reads the destination from a context of connect6 or sendmsg6.
#[inline(always)]
pub(crate) fn destination6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above.
    let words = unsafe { &raw const (*ctx.sock_addr).user_ip6 };
    // SAFETY: as above. The read has 64 bits, a width that the kernel permits for this field only. It is volatile, so
    // that the compiler chooses no other width.
    let [upper, lower] = unsafe { words.cast::<[u64; 2]>().read_volatile() };
    let address = Halves {
        upper: u64::from_be(upper),
        lower: u64::from_be(lower),
    };
    with_address(ctx, address)
}

#[inline(always)]
fn with_address(ctx: &SockAddrContext, address: Halves) -> Destination {
    // SAFETY: as above.
    let port = unsafe { (*ctx.sock_addr).user_port };
    // SAFETY: as above.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    // `user_port` is in network order, in the low half of the word.
    let [high, low, ..] = port.to_ne_bytes();
    Destination {
        address,
        port: u16::from_be_bytes([high, low]),
        protocol: Protocol(protocol),
        path: LookupPath::Address,
    }
}

/// Returns the socket of a call: a full socket, or null.
#[inline(always)]
pub(crate) fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: as above.
    let union = unsafe { (*ctx.sock_addr).__bindgen_anon_1 };
    // SAFETY: all members of the union are this pointer.
    unsafe { union.sk }
}
