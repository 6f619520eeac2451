//! The system call filter of every command. It refuses calls that bypass the eBPF programs.
//!
//! - **Compat calls.** The kernel runs the setsockopt programs only for native calls (`do_sock_setsockopt` in
//!   net/socket.c, `__sys_setsockopt` before Linux 6.7: `if (!compat)`). The filter refuses the same options to the
//!   calls that bypass the programs: 32-bit calls, x32 calls, and io_uring set up by such a call, because no filter
//!   sees the operations of a ring. The options by which sockets share a port are among them: the programs must know a
//!   socket that has one, because its listener may be a service of the host.
//! - **Keys.** For request_key(2) with call-out information the kernel runs /sbin/request-key as root, outside of the
//!   fence (`call_sbin_request_key` in security/keys/request_key.c).
//! - **Access to what others have.** Some calls give a process access to something outside of the fence without the
//!   permission to trace its owner, which is all that the Landlock domain takes away. ioctl(2) puts characters into a
//!   terminal that is shared with a shell outside, and returns the network namespace of a socket; open_by_handle_at(2)
//!   opens any namespace by its number (Linux 6.18).
//!
//! A filter sees only registers. Calls that it refuses are not recorded.

use nix::libc::{self, sock_filter};

use super::{
    bpf::{Code, Test, Word, end, load, when},
    calls::{self, Convention, IOCTL_OF_X32},
};

/// A filter, prepared for the child.
#[derive(Clone, Debug)]
pub(super) struct Filter(Code);

/// The first argument of socketcall(2) for setsockopt: `SYS_SETSOCKOPT` of linux/net.h.
const SOCKETCALL_SETSOCKOPT: u32 = 14;

/// Refused requests of ioctl(2). `TIOCSTI` puts a character into a terminal's input, `TIOCLINUX` pastes the selection, and
/// `TIOCSETD` chooses a line discipline, without which the terminal of the caller is dead (asm-generic/ioctls.h).
/// `SIOCGSKNS` returns the network namespace of a socket (linux/sockios.h), `TUNGETDEVNETNS` that of a tap device
/// (linux/if_tun.h), `NS_MNT_GET_NEXT` and `NS_MNT_GET_PREV` a neighbour of a mount namespace (linux/nsfs.h); only programs
/// that save and restore processes, or list namespaces, need these four.
///
/// `SIOCSIFHWADDR` (linux/sockios.h), on the descriptor of a tap device, changes the MAC address of the host's end, and
/// needs no capability there. `TUNSETPERSIST`, `TUNSETOWNER`, `TUNSETGROUP`, `TUNSETLINK` and `TUNSETDEBUG`
/// (linux/if_tun.h) let a device outlive its fence, and give it to another user. A QEMU that gets a descriptor needs none.
const REFUSED_REQUESTS: [u32; 13] = [
    0x5412,
    0x541c,
    0x5423,
    0x894c,
    0x54e3,
    0x8010_b70b,
    0x8010_b70c,
    0x8924,
    0x4004_54cb,
    0x4004_54cc,
    0x4004_54ce,
    0x4004_54cd,
    0x4004_54c9,
];

/// Levels of options. `SOL_SOCKET` is that of asm-generic/socket.h, which all conventions here use.
const SOL_SOCKET: u32 = 1;
const IPPROTO_IP: u32 = 0;
const IPPROTO_IPV6: u32 = 41;

/// `SO_BROADCAST`.
const SO_BROADCAST: u32 = 6;

/// `SO_REUSEADDR`. Most servers set it and end if they cannot, so the call succeeds and sets nothing: the port of a TCP
/// server is free a minute later after its end, and UDP sockets do not share a port.
const SO_REUSEADDR: u32 = 2;

/// Options that make a group of listeners on one port: `SO_REUSEPORT`, `SO_ATTACH_REUSEPORT_CBPF`,
/// `SO_ATTACH_REUSEPORT_EBPF`. Kernels without them fail with ENOPROTOOPT, and programs go on.
const GROUPS: [u32; 3] = [15, 51, 52];

/// IPv4 options that join a group, or change the senders that are accepted in it. For each, the kernel sends a report.
/// From linux/in.h: `IP_ADD_MEMBERSHIP`, `IP_UNBLOCK_SOURCE`, `IP_BLOCK_SOURCE`, `IP_ADD_SOURCE_MEMBERSHIP`,
/// `IP_DROP_SOURCE_MEMBERSHIP`, `IP_MSFILTER`.
const JOINS_V4: [u32; 6] = [35, 37, 38, 39, 40, 41];

/// The same for IPv6, from linux/in6.h: `IPV6_ADD_MEMBERSHIP`, `IPV6_JOIN_ANYCAST`.
const JOINS_V6: [u32; 2] = [20, 27];

/// The same for both: `MCAST_JOIN_GROUP`, `MCAST_BLOCK_SOURCE`, `MCAST_UNBLOCK_SOURCE`, `MCAST_JOIN_SOURCE_GROUP`,
/// `MCAST_LEAVE_SOURCE_GROUP`, `MCAST_MSFILTER`.
const JOINS: [u32; 6] = [42, 43, 44, 46, 47, 48];

impl Filter {
    /// The filter for this machine. `allow_compat_sockopt` allows compat calls to set all socket options.
    #[must_use]
    pub(super) fn new(allow_compat_sockopt: bool) -> Self {
        Self(assemble(calls::HERE, allow_compat_sockopt))
    }

    /// The instructions of the filter.
    pub(super) fn code(&self) -> &[sock_filter] {
        &self.0
    }
}

/// The filter for a machine with these calling conventions.
fn assemble(conventions: &[Convention], allow_compat_sockopt: bool) -> Code {
    let mut code = vec![load(Word::Arch)];
    for convention in conventions {
        code.extend(when(
            Test::Equal(convention.arch),
            judge(convention, allow_compat_sockopt),
        ));
    }
    // The numbers of any other convention are not known.
    code.push(absent());
    code
}

/// Judges the calls of one convention.
fn judge(convention: &Convention, allow_compat_sockopt: bool) -> Code {
    let mut code = vec![load(Word::Number)];
    if let Some(first) = convention.x32
        && !allow_compat_sockopt
    {
        // Higher numbers are not calls. A tracer sets -1, for instance, in place of a call that it has made itself.
        let mut x32 = when(Test::AtLeast(first << 1), vec![allow()]);
        x32.push(absent());
        code.extend(when(Test::AtLeast(first), x32));
    }
    if convention.is_compat && !allow_compat_sockopt {
        code.extend(when(Test::Equal(convention.setsockopt), judge_option()));
        if let Some(number) = convention.socketcall {
            let mut which = vec![load(Word::Low(0))];
            which.extend(when(Test::Equal(SOCKETCALL_SETSOCKOPT), vec![refuse()]));
            which.push(allow());
            code.extend(when(Test::Equal(number), which));
        }
        code.extend(when(Test::Equal(convention.io_uring_setup), vec![absent()]));
    }
    // Most calls have the same number in x32.
    let also = convention.x32.filter(|_| allow_compat_sockopt);
    for base in [0].into_iter().chain(also) {
        let number = |call| Test::Equal(base | call);
        let ioctl = match base {
            0 => convention.ioctl,
            _ => IOCTL_OF_X32,
        };
        code.extend(when(number(ioctl), judge_request()));
        code.extend(when(number(convention.open_by_handle_at), vec![refuse()]));
        let is_wide = !convention.is_compat;
        code.extend(when(number(convention.request_key), judge_key(is_wide)));
    }
    code.push(allow());
    code
}

/// setsockopt(fd, level, option, …).
fn judge_option() -> Code {
    let mut code = vec![load(Word::Low(1))];
    for (level, options) in [
        (
            SOL_SOCKET,
            &[
                (&[SO_BROADCAST][..], refuse()),
                (&[SO_REUSEADDR], succeed()),
                (&GROUPS, unknown()),
            ][..],
        ),
        (IPPROTO_IP, &[(&JOINS_V4, refuse()), (&JOINS, refuse())]),
        (IPPROTO_IPV6, &[(&JOINS_V6, refuse()), (&JOINS, refuse())]),
    ] {
        let mut of_level = vec![load(Word::Low(2))];
        for (options, end) in options {
            for option in *options {
                of_level.extend(when(Test::Equal(*option), vec![*end]));
            }
        }
        of_level.push(allow());
        code.extend(when(Test::Equal(level), of_level));
    }
    code.push(allow());
    code
}

/// ioctl(fd, request, …). The kernel uses 32 bits of the request.
fn judge_request() -> Code {
    let mut code = vec![load(Word::Low(1))];
    for request in REFUSED_REQUESTS {
        code.extend(when(Test::Equal(request), vec![refuse()]));
    }
    code.push(allow());
    code
}

/// request_key(type, description, callout_info, keyring). Without call-out information it only searches.
fn judge_key(is_wide: bool) -> Code {
    let is_null = |word, then| [vec![load(word)], when(Test::Equal(0), then)].concat();
    let mut code = if is_wide {
        is_null(Word::Low(2), {
            let mut high = is_null(Word::High(2), vec![allow()]);
            high.push(refuse());
            high
        })
    } else {
        is_null(Word::Low(2), vec![allow()])
    };
    code.push(refuse());
    code
}

fn allow() -> sock_filter {
    end(libc::SECCOMP_RET_ALLOW)
}

/// Fails with EPERM: the call is not permitted.
fn refuse() -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs())
}

/// Succeeds, and the kernel does nothing.
fn succeed() -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO)
}

/// Fails with ENOPROTOOPT: the option does not exist.
fn unknown() -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT.unsigned_abs())
}

/// Fails with ENOSYS: the call does not exist, so that a program uses an alternative.
fn absent() -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs())
}

#[cfg(test)]
mod tests;
