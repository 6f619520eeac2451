//! Reports TCP connections whose SYN was refused, so that the supervisor ends them.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use qfence_common::{Halves, RefusedSyn};

use crate::{
    maps::REFUSED_SYNS,
    subject::{
        skb::whole_socket,
        socket::{INET, local_address, local_port},
    },
};

/// TCP_SYN_SENT (net/tcp_states.h).
const SYN_SENT: u32 = 2;

/// Reports the connection of a refused packet, if it is being opened. Returns 0, because a global function must return a
/// value. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_report_syn(skb: *mut __sk_buff) -> u32 {
    let socket = whole_socket(skb);
    // SAFETY: a full socket, not null.
    if socket.is_null() || unsafe { (*socket).state } != SYN_SENT {
        return 0;
    }
    let syn = RefusedSyn {
        local: local_address(socket),
        remote: remote_address(socket),
        local_port: local_port(socket),
        remote_port: remote_port(socket),
        reserved: 0,
    };
    // If there is no room, TCP sends the SYN again.
    let _ = REFUSED_SYNS.output(syn, 0);
    0
}

/// Returns the address to which a socket, which is not null, is connected.
#[inline(always)]
fn remote_address(socket: *mut bpf_sock) -> Halves {
    // SAFETY: a socket, not null.
    if unsafe { (*socket).family } == INET {
        // SAFETY: as above.
        let ip = unsafe { (*socket).dst_ip4 };
        return Halves::from_v4(u32::from_be(ip));
    }
    // SAFETY: as above. All words are copied: the verifier permits no variable index into a socket.
    let words = unsafe { (*socket).dst_ip6 };
    Halves::from_v6(words.map(u32::from_be))
}

/// Returns the port to which a socket, which is not null, is connected, in host order.
#[inline(always)]
fn remote_port(socket: *mut bpf_sock) -> u16 {
    // SAFETY: as above.
    let port = unsafe { &raw const (*socket).dst_port };
    // SAFETY: as above. Before Linux 5.17 the field was a word, and only a word can be read; later kernels permit that still
    // (`bpf_sock_is_valid_access` in net/core/filter.c). It is volatile, so that the compiler keeps the width.
    let word = unsafe { port.cast::<u32>().read_volatile() };
    let [high, low, ..] = word.to_ne_bytes();
    u16::from_be_bytes([high, low])
}
