//! The hooks of the security module BPF for Unix sockets: refuse connections and datagrams to managers, which run programs
//! outside the fence for others.
//!
//! The cgroup of the calling process decides whether the programs run, not that of its socket.

use aya_ebpf::{EbpfContext as _, programs::LsmContext};
use qfence_common::{
    Halves, Hook,
    manager::{self, DENIED, EXEMPT, PROOF},
    proof,
    verdict::MANAGER,
};

use crate::{
    account::{
        PROCEED, fail_with,
        record::{Refusal, record},
    },
    subject::{author::Author, netns::read, unix_socket::UnixSocket},
};

/// Judges the connection of a socket to another one, which are the hook's first arguments.
#[inline(always)]
pub(crate) fn judge_connect(ctx: &LsmContext) -> i32 {
    judge(UnixSocket(second(ctx)), Hook::UnixStreamConnect)
}

/// Judges a datagram from a socket to another one, which are the hook's first arguments.
#[inline(always)]
pub(crate) fn judge_send(ctx: &LsmContext) -> i32 {
    judge(UnixSocket::of(second(ctx)), Hook::UnixMaySend)
}

/// The second argument of the hook. It is read as a number: the verifier would check each use of it as a pointer.
#[inline(always)]
fn second(ctx: &LsmContext) -> u64 {
    read(ctx.as_ptr() as u64 + 8)
}

#[inline(always)]
fn judge(peer: UnixSocket, hook: Hook) -> i32 {
    if peer.is_of_the_fence() {
        return PROCEED;
    }
    let class = peer.class();
    if class == u64::from(PROOF) {
        return fail_with(-proof::ERRNO);
    }
    if class == u64::from(EXEMPT) || (class != u64::from(DENIED) && !peer.is_a_managers()) {
        return PROCEED;
    }
    let what = Refusal {
        address: Halves::NONE,
        port: peer.kind(),
        protocol: 0,
        hook: hook as u32,
        rule: MANAGER,
        source: Halves::NONE,
        source_port: 0,
    };
    record(&what, &Author::current(0), false);
    fail_with(-manager::ERRNO)
}
