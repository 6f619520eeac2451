//! Sockets: judges those that are made, and reads from those that send.

use aya_ebpf::{bindings::bpf_sock, programs::SockContext};
use qfence_common::{Hook, decide::SOCKET_KIND};

use crate::{
    judge::{PROCEED, REJECT},
    maps::ALLOW_RAW,
    owner,
    record::{Author, Refusal, refused},
};

/// SOCK_RAW (linux/net.h).
const RAW: u32 = 3;
/// IPPROTO_UDPLITE: connected, such a socket passes no other hook for calls.
const UDP_LITE: u32 = 136;

/// Refuses raw sockets and UDP-Lite, unless they are let be, and notes who makes a socket.
#[inline(always)]
pub(crate) fn judge_socket(ctx: &SockContext) -> i32 {
    // SAFETY: the kernel hands in a valid `bpf_sock`; the verifier checks each access.
    let kind = unsafe { (*ctx.sock).type_ };
    // SAFETY: as above.
    let protocol = unsafe { (*ctx.sock).protocol };
    let author = Author::current();
    if (kind == RAW || protocol == UDP_LITE) && ALLOW_RAW.load() == 0 {
        let what = Refusal {
            address: [0; 16],
            port: kind,
            protocol,
            hook: Hook::SockCreate as u32,
            rule: SOCKET_KIND,
        };
        refused(&what, &author);
        return REJECT;
    }
    owner::note(ctx.sock, &author);
    PROCEED
}

/// The port a socket sends from, in host order; 0 for none. `socket` may be null.
#[inline(always)]
pub(crate) fn local_port(socket: *mut bpf_sock) -> u16 {
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a socket, not null.
    let port = unsafe { (*socket).src_port };
    // A word, in host order.
    u16::try_from(port).unwrap_or(0)
}

/// Whether a whole socket is raw. `socket` may be null.
#[inline(always)]
pub(crate) fn is_raw(socket: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, not null.
    !socket.is_null() && unsafe { (*socket).type_ == RAW }
}
