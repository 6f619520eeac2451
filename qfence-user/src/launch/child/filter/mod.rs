//! The filter of system calls that every command is started with: what it refuses, no program on the cgroup sees.
//!
//! - **Compat calls.** The kernel asks the programs at setsockopt for native calls alone (`do_sock_setsockopt` in
//!   net/socket.c, `__sys_setsockopt` before Linux 6.7: `if (!compat)`). What they refuse is refused here to the
//!   calls that pass them: of 32 bits, of x32, and of an io_uring that was set up by such a call, whose operations no
//!   filter sees.
//! - **Keys.** request_key(2) with call-out information has the kernel run /sbin/request-key, as root and outside of
//!   the fence (`call_sbin_request_key` in security/keys/request_key.c).
//!
//! - **Ways to what others have.** Some calls give a process what is outside of the fence without asking whether it may
//!   trace whoever has it, which the Landlock domain is for: ioctl(2) puts characters into a terminal that is shared
//!   with a shell outside, and asks a socket for its peer's namespace; open_by_handle_at(2) opens any namespace by its
//!   number (Linux 6.18).
//!
//! A filter sees the registers and nothing else. What is refused here is on no record.

use nix::libc::{self, sock_filter};

use super::{
    bpf::{Code, Test, Word, end, load, when},
    calls::{self, Convention, IOCTL_OF_X32},
};

/// What the filter is to let through or to refuse, beside the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strictness {
    /// Let compat calls set any option of a socket.
    pub allow_compat_sockopt: bool,
    /// Refuse whatever closes a way out that few programs need.
    pub strict: bool,
}

/// A filter, ready to be installed.
#[derive(Clone, Debug)]
pub(super) struct Filter(Code);

/// `SYS_SETSOCKOPT` of linux/net.h: which call socketcall(2) is.
const SOCKETCALL_SETSOCKOPT: u32 = 14;

/// Requests of ioctl(2): to put a character into a terminal's input (`TIOCSTI`), or to paste what is selected
/// (`TIOCLINUX`), of asm-generic/ioctls.h; and for the network namespace of a socket (`SIOCGSKNS` of linux/sockios.h) or
/// of a tap device (`TUNGETDEVNETNS` of linux/if_tun.h). Descriptors of a socket's namespace are for who saves and
/// restores processes.
const REFUSED_REQUESTS: [u32; 4] = [0x5412, 0x541c, 0x894c, 0x54e3];

/// Levels of options (`SOL_SOCKET` of asm-generic/socket.h, which the conventions here share).
const SOL_SOCKET: u32 = 1;
const IPPROTO_IP: u32 = 0;
const IPPROTO_IPV6: u32 = 41;

/// `SO_BROADCAST`.
const SO_BROADCAST: u32 = 6;

/// What joins a group, or changes whose packets to it are wanted, of which the kernel sends a report: by linux/in.h
/// `IP_ADD_MEMBERSHIP`, `IP_UNBLOCK_SOURCE`, `IP_BLOCK_SOURCE`, `IP_ADD_SOURCE_MEMBERSHIP`,
/// `IP_DROP_SOURCE_MEMBERSHIP`, `IP_MSFILTER`.
const JOINS_V4: [u32; 6] = [35, 37, 38, 39, 40, 41];

/// The same by linux/in6.h: `IPV6_ADD_MEMBERSHIP`, `IPV6_JOIN_ANYCAST`.
const JOINS_V6: [u32; 2] = [20, 27];

/// The same of both: `MCAST_JOIN_GROUP`, `MCAST_BLOCK_SOURCE`, `MCAST_UNBLOCK_SOURCE`, `MCAST_JOIN_SOURCE_GROUP`,
/// `MCAST_LEAVE_SOURCE_GROUP`, `MCAST_MSFILTER`.
const JOINS: [u32; 6] = [42, 43, 44, 46, 47, 48];

impl Filter {
    /// The filter for this machine.
    #[must_use]
    pub(super) fn new(strictness: Strictness) -> Self {
        Self(assemble(calls::HERE, strictness))
    }

    /// Its instructions.
    pub(super) fn code(&self) -> &[sock_filter] {
        &self.0
    }
}

/// The filter for a machine on which calls are made in these conventions.
fn assemble(conventions: &[Convention], strictness: Strictness) -> Code {
    let mut code = vec![load(Word::Arch)];
    for convention in conventions {
        code.extend(when(
            Test::Equal(convention.arch),
            judge(convention, strictness),
        ));
    }
    // By whatever else the kernel takes calls, it is not known what they are.
    code.push(absent());
    code
}

/// What becomes of the calls of one convention.
fn judge(convention: &Convention, strictness: Strictness) -> Code {
    let mut code = vec![load(Word::Number)];
    if let Some(first) = convention.x32
        && !strictness.allow_compat_sockopt
    {
        // What is beyond is no call, such as the -1 that a tracer puts in place of one that it has made itself.
        let mut x32 = when(Test::AtLeast(first << 1), vec![allow()]);
        x32.push(absent());
        code.extend(when(Test::AtLeast(first), x32));
    }
    if convention.is_compat && !strictness.allow_compat_sockopt {
        code.extend(when(Test::Equal(convention.setsockopt), judge_option()));
        if let Some(number) = convention.socketcall {
            let mut which = vec![load(Word::Low(0))];
            which.extend(when(Test::Equal(SOCKETCALL_SETSOCKOPT), vec![refuse()]));
            which.push(allow());
            code.extend(when(Test::Equal(number), which));
        }
        code.extend(when(Test::Equal(convention.io_uring_setup), vec![absent()]));
    }
    // Most calls have the same numbers in x32.
    let also = convention.x32.filter(|_| strictness.allow_compat_sockopt);
    for base in [0].into_iter().chain(also) {
        let number = |call| Test::Equal(base | call);
        let ioctl = match base {
            0 => convention.ioctl,
            _ => IOCTL_OF_X32,
        };
        code.extend(when(number(ioctl), judge_request()));
        code.extend(when(number(convention.open_by_handle_at), vec![refuse()]));
        if strictness.strict {
            for call in [
                convention.add_key,
                convention.request_key,
                convention.keyctl,
            ] {
                code.extend(when(number(call), vec![refuse()]));
            }
        } else {
            let is_wide = !convention.is_compat;
            code.extend(when(number(convention.request_key), judge_key(is_wide)));
        }
    }
    code.push(allow());
    code
}

/// setsockopt(fd, level, option, …).
fn judge_option() -> Code {
    let mut code = vec![load(Word::Low(1))];
    for (level, options) in [
        (SOL_SOCKET, &[&[SO_BROADCAST][..]][..]),
        (IPPROTO_IP, &[&JOINS_V4, &JOINS]),
        (IPPROTO_IPV6, &[&JOINS_V6, &JOINS]),
    ] {
        let mut of_level = vec![load(Word::Low(2))];
        for option in options.concat() {
            of_level.extend(when(Test::Equal(option), vec![refuse()]));
        }
        of_level.push(allow());
        code.extend(when(Test::Equal(level), of_level));
    }
    code.push(allow());
    code
}

/// ioctl(fd, request, …), of which the kernel looks at 32 bits.
fn judge_request() -> Code {
    let mut code = vec![load(Word::Low(1))];
    for request in REFUSED_REQUESTS {
        code.extend(when(Test::Equal(request), vec![refuse()]));
    }
    code.push(allow());
    code
}

/// request_key(type, description, callout_info, keyring): without call-out information it only searches.
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

/// It may not be done.
fn refuse() -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs())
}

/// There is no such call: whoever has another way takes that.
fn absent() -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs())
}

#[cfg(test)]
mod tests;
