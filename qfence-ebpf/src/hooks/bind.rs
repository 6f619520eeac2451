//! The hooks for bind(2): refuse local ports that the command may not have. A fence has these programs only if its closure
//! of listeners is requested.

use aya_ebpf::{helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use qfence_common::{
    Halves, Protocol,
    own::{REUSE_ADDR, REUSE_PORT},
    port::{bit, word_index},
    proof::{self, Token},
    verdict::LISTENER,
};

use crate::{
    account::{
        PROCEED, fail_with,
        record::{Refusal, record},
    },
    maps::{PORTS, PROOF},
    subject::{
        author::Author,
        destination::{Destination, socket},
        owner,
    },
};

/// EACCES (asm-generic/errno-base.h).
const EACCES: i32 = 13;

/// Judges the local address and port that a socket is bound to, at the hook with number `HOOK`. For port 0 the kernel
/// chooses a port. It is free, unless the socket may share its port with others: then it can be that of a service.
#[inline(always)]
pub(crate) fn judge_bind<const HOOK: u32>(ctx: &SockAddrContext, local: &Destination) -> i32 {
    if Token(PROOF.load()).is(local.address, local.port) {
        return fail_with(-proof::ERRNO);
    }
    let is_free = local.port == 0 && !may_share(ctx, local.protocol);
    if is_free || may_bind(local) {
        return PROCEED;
    }
    let what = Refusal {
        address: local.address,
        port: local.port.into(),
        protocol: local.protocol.0,
        hook: HOOK,
        rule: LISTENER,
        source: Halves::NONE,
        source_port: 0,
    };
    // SAFETY: the hook's own context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    record(&what, &Author::current(netns), false);
    fail_with(-EACCES)
}

/// Whether a socket may be bound to a port that another one has. A socket of which nothing is known may.
#[inline(always)]
fn may_share(ctx: &SockAddrContext, protocol: Protocol) -> bool {
    let sharing = if protocol == Protocol::UDP {
        REUSE_ADDR | REUSE_PORT
    } else {
        REUSE_PORT
    };
    owner::made(socket(ctx)).is_none_or(|made| made.flags & sharing != 0)
}

#[inline(always)]
fn may_bind(local: &Destination) -> bool {
    word_index(local.protocol, local.port)
        .and_then(|index| PORTS.get(index))
        .is_some_and(|word| word & bit(local.port) != 0)
}
