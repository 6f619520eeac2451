//! The eBPF programs, one for each hook. Each is a single line.
//!
//! | room | its job |
//! |---|---|
//! | `hooks` | the actions of the program for each hook |
//! | `subject` | reads the subject: the call, the packet, the socket, and the process behind them |
//! | `judge` | determines the verdict on a destination: the policy, and the reply exception |
//! | `account` | counts and records |
//! | `maps` | the maps, and the globals that the loader sets |
//! | `kernel` | what differs between kernels |
//! | `object` | what every object has |
#![no_std]
#![no_main]
// The kernel has an instruction for an atomic addition. But `AtomicU64::fetch_add` is not available for this target,
// because its oldest CPU model has no compare-and-swap.
#![feature(core_intrinsics)]
// Inline assembly for this target, for one instruction (`kernel.rs`).
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(internal_features, reason = "see above")]

mod account;
mod hooks;
mod judge;
mod kernel;
mod maps;
mod object;
mod subject;

use aya_ebpf::{
    macros::{
        cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier,
        lsm_cgroup,
    },
    programs::{
        DeviceContext, LsmContext, SkBuffContext, SockAddrContext, SockContext, SockoptContext,
        TcContext,
    },
};
use hooks::{
    bind::judge_bind, call::judge_call, device, frame, lead::restore, listing, manager, opened,
    options, packet, received, socket, unix::judge_name,
};
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

/// A datagram to an IPv4 destination of its own.
#[cgroup_sock_addr(sendmsg4)]
fn judge_sendmsg4(ctx: SockAddrContext) -> i32 {
    judge_call::<{ Hook::Sendmsg4 as u32 }>(&ctx, &destination4(&ctx))
}

/// A datagram to an IPv6 destination of its own.
#[cgroup_sock_addr(sendmsg6)]
fn judge_sendmsg6(ctx: SockAddrContext) -> i32 {
    judge_call::<{ Hook::Sendmsg6 as u32 }>(&ctx, &destination6(&ctx))
}

/// An outgoing packet.
#[cgroup_skb(egress)]
fn judge_egress(ctx: SkBuffContext) -> i32 {
    packet::judge_egress(&ctx)
}

/// An incoming packet.
#[cgroup_skb(ingress)]
fn judge_ingress(ctx: SkBuffContext) -> i32 {
    packet::judge_ingress(&ctx)
}

/// `socket()`.
#[cgroup_sock(sock_create)]
fn judge_sock_create(ctx: SockContext) -> i32 {
    socket::judge_socket(&ctx)
}

/// `open()` of a device.
#[cgroup_device]
fn judge_device(ctx: DeviceContext) -> i32 {
    device::judge_device(&ctx)
}

/// `setsockopt()`.
#[cgroup_sockopt(setsockopt)]
fn judge_setsockopt(ctx: SockoptContext) -> i32 {
    options::judge_option(&ctx)
}

/// `connect()` on a Unix socket for a stream.
#[lsm_cgroup(hook = "unix_stream_connect")]
fn judge_unix_connect(ctx: LsmContext) -> i32 {
    manager::judge_connect(&ctx)
}

/// A datagram, or `connect()`, on a Unix socket for datagrams.
#[lsm_cgroup(hook = "unix_may_send")]
fn judge_unix_send(ctx: LsmContext) -> i32 {
    manager::judge_send(&ctx)
}

/// A file that another process hands over.
#[lsm_cgroup(hook = "file_receive")]
fn judge_received(ctx: LsmContext) -> i32 {
    received::judge_received(&ctx)
}

/// `connect()` to the name of a Unix socket. The section is that of another hook, because aya does not know this one.
/// The loader loads it for its own attach type.
#[cgroup_sock_addr(connect4)]
fn judge_connect_unix(ctx: SockAddrContext) -> i32 {
    judge_name::<{ Hook::ConnectUnix as u32 }>(&ctx)
}

/// A message to the name of a Unix socket. The section is as above.
#[cgroup_sock_addr(sendmsg4)]
fn judge_sendmsg_unix(ctx: SockAddrContext) -> i32 {
    judge_name::<{ Hook::SendmsgUnix as u32 }>(&ctx)
}

/// `bind()` of an IPv4 socket.
#[cgroup_sock_addr(bind4)]
fn judge_bind4(ctx: SockAddrContext) -> i32 {
    judge_bind::<{ Hook::Bind4 as u32 }>(&ctx, &destination4(&ctx))
}

/// `bind()` of an IPv6 socket.
#[cgroup_sock_addr(bind6)]
fn judge_bind6(ctx: SockAddrContext) -> i32 {
    judge_bind::<{ Hook::Bind6 as u32 }>(&ctx, &destination6(&ctx))
}

/// The source of a datagram that an IPv4 socket receives.
#[cgroup_sock_addr(recvmsg4)]
fn restore_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore::<{ Hook::Recvmsg4 as u32 }>(&ctx, &destination4(&ctx))
}

/// The source of a datagram that an IPv6 socket receives.
#[cgroup_sock_addr(recvmsg6)]
fn restore_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore::<{ Hook::Recvmsg6 as u32 }>(&ctx, &destination6(&ctx))
}

/// `getpeername()` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn restore_getpeername4(ctx: SockAddrContext) -> i32 {
    restore::<{ Hook::Getpeername4 as u32 }>(&ctx, &destination4(&ctx))
}

/// `getpeername()` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn restore_getpeername6(ctx: SockAddrContext) -> i32 {
    restore::<{ Hook::Getpeername6 as u32 }>(&ctx, &destination6(&ctx))
}

/// A frame from a guest, at a network device.
#[classifier]
fn judge_frame(ctx: TcContext) -> i32 {
    frame::judge_frame(&ctx)
}

/// A frame to a guest.
#[classifier]
fn note_frame(ctx: TcContext) -> i32 {
    frame::note_frame(&ctx)
}

/// Each open file of each process. aya has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn list_sockets(ctx: *const u64) -> i32 {
    listing::list(ctx)
}

/// A question about a socket, which is run on by qfence, and attached to nothing.
#[classifier]
fn note_opened(ctx: TcContext) -> i32 {
    opened::answer(&ctx).cast_signed()
}
