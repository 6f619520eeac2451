//! Answers who opened the connection of a TCP socket that stood before the fence was attached, and notes its owner. The
//! socket is looked up by its addresses, so that it need not have a descriptor: it may be on its way between processes, or
//! io_uring alone may have it. qfence runs the program on a packet that has the question (`BPF_PROG_TEST_RUN`).

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release, bpf_skc_to_tcp_sock},
    programs::TcContext,
};
use qfence_common::listing::{
    ACCEPTED, ACCEPTED_BITS, CHANGING, NOT_FOUND, NOTE_ANYWAY, OPENED, Question, TELL, UNNOTED,
};

use crate::{
    maps::{LISTING_OFFSETS, NETNS_OFFSETS},
    subject::{author::Author, netns::read, owner, shown::shown, socket::LISTEN},
};

/// `BPF_F_CURRENT_NETNS` in linux/bpf.h: the namespace of the caller.
const CURRENT_NETNS: u64 = u64::MAX;

/// An upper bound of offsets in a socket: the verifier requires a bound for numbers that are added to a typed pointer.
const MOST: u32 = 0xffff;

/// The bytes before the IPv4 address in a v4-mapped one (RFC 4291, 2.5.5.2).
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The size of the members of a tuple for IPv4 and for IPv6.
const V4: u32 = 12;
const V6: u32 = 36;

/// Answers the question in a packet.
#[inline(always)]
pub(crate) fn answer(ctx: &TcContext) -> u32 {
    let Ok(question) = ctx.load::<Question>(0) else {
        return NOT_FOUND;
    };
    let (mut tuple, size) = tuple(&question);
    // SAFETY: the program's own context, and a tuple of this size.
    let socket = unsafe { bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return NOT_FOUND;
    }
    let answer = answer_about(socket, &question);
    // SAFETY: the socket that was found, once.
    unsafe { bpf_sk_release(socket.cast()) };
    answer
}

#[inline(always)]
fn answer_about(socket: *mut bpf_sock, question: &Question) -> u32 {
    // SAFETY: a socket, not null.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() {
        return NOT_FOUND;
    }
    let address = tcp as u64;
    let at = |offset: u32| address + u64::from(offset & MOST);
    let offsets = LISTING_OFFSETS.load();
    let cookie = read(at(offsets.cookie));
    let numbers = shown(at);
    // Without an established socket, the kernel finds the listener of the port.
    let is_listener = numbers.is_some_and(|numbers| numbers.state == LISTEN);
    if is_listener || (question.cookie != 0 && question.cookie != cookie) {
        return NOT_FOUND;
    }
    if question.wish != NOTE_ANYWAY {
        match numbers {
            None => return CHANGING,
            Some(numbers) if numbers.is_accepted() => {
                return ACCEPTED | (numbers.device << ACCEPTED_BITS);
            }
            Some(_) if question.wish == TELL => return OPENED,
            Some(_) => {}
        }
    }
    let namespace = read(at(NETNS_OFFSETS.load().sock_net));
    let cookie = read(namespace + u64::from(offsets.netns_cookie));
    match owner::note_old(socket.cast(), &Author::of_the_fence(cookie), false) {
        true => OPENED,
        false => UNNOTED,
    }
}

/// The addresses and ports of a socket, as those of a packet to it, and the size of what is used of them.
#[inline(always)]
fn tuple(question: &Question) -> (bpf_sock_tuple, u32) {
    let (remote, local) = (words(question.remote), words(question.local));
    let sport = u16::from_ne_bytes(question.remote_port);
    let dport = u16::from_ne_bytes(question.local_port);
    // The kernel takes the family by the size.
    let mut ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
        saddr: remote,
        daddr: local,
        sport,
        dport,
    };
    let mut size = V6;
    if question.local.starts_with(&MAPPED) {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: remote[3],
            daddr: local[3],
            sport,
            dport,
        };
        let start = (&raw mut ipv6).cast::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>();
        // SAFETY: plain numbers without padding, and shorter than what is there.
        unsafe { start.write(ipv4) };
        size = V4;
    }
    let both = bpf_sock_tuple__bindgen_ty_1 { ipv6 };
    (
        bpf_sock_tuple {
            __bindgen_anon_1: both,
        },
        size,
    )
}

/// The words of an address, in network order.
#[inline(always)]
fn words(address: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}
