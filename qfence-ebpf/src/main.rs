//! The programs: one for each hook, each a line.
//!
//! | room | its job |
//! |---|---|
//! | `hooks` | what the program for each hook does |
//! | `subject` | reads what is judged: the call, the packet, the socket, and who is behind them |
//! | `judge` | from a destination to a verdict: the policy, and the peers that may be answered |
//! | `account` | counts, and puts on record |
//! | `maps` | the maps, and the globals that the loader sets |
#![no_std]
#![no_main]
// An atomic add is one instruction to the kernel, but `AtomicU64::fetch_add` is not there for the
// target, which has no compare-and-swap in its oldest CPU model.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "see above")]

mod account;
mod hooks;
mod judge;
mod maps;
mod subject;

use aya_ebpf::{
    macros::{cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt},
    programs::{DeviceContext, SkBuffContext, SockAddrContext, SockContext, SockoptContext},
};
use hooks::{call::judge_call, device, options, packet, socket};
use qfence_common::Hook;
use subject::destination::{destination4, destination6};

/// `connect()` to an IPv4 destination.
#[cgroup_sock_addr(connect4)]
fn judge_connect4(ctx: SockAddrContext) -> i32 {
    judge_call::<{ Hook::Connect4 as u32 }>(&ctx, &destination4(&ctx))
}

/// `connect()` to an IPv6 destination.
#[cgroup_sock_addr(connect6)]
fn judge_connect6(ctx: SockAddrContext) -> i32 {
    judge_call::<{ Hook::Connect6 as u32 }>(&ctx, &destination6(&ctx))
}

/// A datagram with an IPv4 destination of its own.
#[cgroup_sock_addr(sendmsg4)]
fn judge_sendmsg4(ctx: SockAddrContext) -> i32 {
    judge_call::<{ Hook::Sendmsg4 as u32 }>(&ctx, &destination4(&ctx))
}

/// A datagram with an IPv6 destination of its own.
#[cgroup_sock_addr(sendmsg6)]
fn judge_sendmsg6(ctx: SockAddrContext) -> i32 {
    judge_call::<{ Hook::Sendmsg6 as u32 }>(&ctx, &destination6(&ctx))
}

/// A packet that leaves.
#[cgroup_skb(egress)]
fn judge_egress(ctx: SkBuffContext) -> i32 {
    packet::judge_egress(&ctx)
}

/// A packet that arrives.
#[cgroup_skb(ingress)]
fn judge_ingress(ctx: SkBuffContext) -> i32 {
    packet::judge_ingress(&ctx)
}

/// A socket that is made.
#[cgroup_sock(sock_create)]
fn judge_sock_create(ctx: SockContext) -> i32 {
    socket::judge_socket(&ctx)
}

/// A device that is opened.
#[cgroup_device]
fn judge_device(ctx: DeviceContext) -> i32 {
    device::judge_device(&ctx)
}

/// A socket option that is set.
#[cgroup_sockopt(setsockopt)]
fn judge_setsockopt(ctx: SockoptContext) -> i32 {
    options::judge_option(&ctx)
}

/// Never reached: the verifier accepts no program that could panic. The linker wants it.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// ring buffers and the current task's name are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
