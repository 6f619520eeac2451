//! Reads the destination of a call out of the hook's context.

use aya_ebpf::{bindings::bpf_sock, programs::SockAddrContext};
use qfence_common::{Address, Path, Protocol, address};

/// Where a socket is about to send.
pub(crate) struct Destination {
    pub(crate) address: Address,
    /// In host order.
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// What is known of the way there.
    pub(crate) path: Path,
    /// The socket, a whole one, or null.
    pub(crate) socket: *mut bpf_sock,
}

/// The destination in a context of connect4 or sendmsg4.
#[inline(always)]
pub(crate) fn destination4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the kernel hands in a valid `bpf_sock_addr`; the verifier checks each access.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    with_address(ctx, address::from_v4(ip.to_ne_bytes()))
}

/// The destination in a context of connect6 or sendmsg6.
#[inline(always)]
pub(crate) fn destination6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above. Copied whole: the verifier takes no variable index into the context.
    let words = unsafe { (*ctx.sock_addr).user_ip6 };
    with_address(ctx, address::from_words(words))
}

#[inline(always)]
fn with_address(ctx: &SockAddrContext, address: Address) -> Destination {
    // SAFETY: as above.
    let port = unsafe { (*ctx.sock_addr).user_port };
    // SAFETY: as above.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    // SAFETY: as above.
    let union = unsafe { (*ctx.sock_addr).__bindgen_anon_1 };
    // SAFETY: all members of the union are this pointer.
    let socket = unsafe { union.sk };
    // The kernel keeps `user_port` in network order in the low half of the word.
    let [high, low, ..] = port.to_ne_bytes();
    Destination {
        address,
        port: u16::from_be_bytes([high, low]),
        protocol: Protocol(protocol),
        path: Path::Address,
        socket,
    }
}
