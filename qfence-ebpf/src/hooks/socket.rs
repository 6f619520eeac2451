//! The hook for new sockets: refuses the types that no other hook covers, and sockets in foreign namespaces.

use aya_ebpf::{helpers::bpf_get_netns_cookie, programs::SockContext};
use qfence_common::{
    Halves, Hook, Protocol,
    verdict::{FOREIGN_NETNS, LISTENER, SOCKET_KIND},
};

use crate::{
    account::{
        PROCEED, REJECT,
        record::{Refusal, refuse},
    },
    judge::policy::monitors,
    maps::{ALLOW_NETNS, ALLOW_RAW, CLOSES_LISTENERS},
    subject::{
        author::Author,
        netns::{self, Place},
        owner,
        socket::{DGRAM, ICMP, ICMPV6, RAW, UDP},
    },
};

/// Refuses raw sockets and datagram sockets of protocols other than UDP and ping, unless they are allowed, and sockets
/// in a network namespace that was made outside the fence. Notes the owner of each allowed socket.
///
/// A connected UDP-Lite socket passes no other hook for calls. L2TP over IP, which every user can send, passes none at
/// all.
#[inline(always)]
pub(crate) fn judge_socket(ctx: &SockContext) -> i32 {
    // SAFETY: the kernel passes a valid `bpf_sock`; the verifier checks each access.
    let kind = unsafe { (*ctx.sock).type_ };
    // SAFETY: as above.
    let protocol = unsafe { (*ctx.sock).protocol };
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    let author = Author::current(cookie);
    let is_odd = kind == DGRAM && protocol != UDP && protocol != ICMP && protocol != ICMPV6;
    let place = netns::place(ctx, cookie);
    let reason = if place == Place::Foreign && ALLOW_NETNS.load() == 0 {
        Some(FOREIGN_NETNS)
    } else if (kind == RAW || is_odd) && ALLOW_RAW.load() == 0 {
        Some(SOCKET_KIND)
    } else if protocol == Protocol::SCTP.0 && CLOSES_LISTENERS.load() != 0 {
        // `sctp_bind` in net/sctp/socket.c runs no program.
        Some(LISTENER)
    } else {
        None
    };
    if let Some(rule) = reason {
        let what = Refusal {
            address: Halves::NONE,
            port: kind,
            protocol,
            hook: Hook::SockCreate as u32,
            rule,
            source: Halves::NONE,
            source_port: 0,
        };
        // Monitor mode does not concern the closure of listeners.
        if refuse(&what, &author, rule != LISTENER && monitors()) == REJECT {
            return REJECT;
        }
    }
    owner::note(ctx, &author, place, reason);
    PROCEED
}
