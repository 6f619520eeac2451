//! Sockets of the fence's own: decides whether the listener at a refused destination is one, so that a connection to it
//! reaches nothing of the host's.
//!
//! The owner of a socket, which the programs note at `socket()`, is what shows that the socket is the fence's. A
//! listener of another process has no owner.

use crate::event::GUEST;

/// In the flags of an owner: a socket option was set, so the socket is not the one of a [pair](is_pair).
pub const TOUCHED: u32 = 1 << 5;

/// In the flags of an owner: a call of setsockopt(2) named `SO_REUSEADDR`, with whatever value.
pub const REUSE_ADDR: u32 = 1 << 6;

/// In the flags of an owner: a call of setsockopt(2) named `SO_REUSEPORT`, with whatever value.
pub const REUSE_PORT: u32 = 1 << 7;

/// In the flags of an owner: the connection was let through as that of a pair.
pub const PAIR: u32 = 1 << 8;

/// In the flags of an owner: the connection was let through by a rule for the set `self`.
pub const SELF: u32 = 1 << 9;

/// All flags by which a connection was let through to a socket of the fence's own.
pub const LET_THROUGH: u32 = PAIR | SELF;

/// The flags of a socket about whose options nothing is known.
pub const UNKNOWN_OPTIONS: u32 = TOUCHED | REUSE_ADDR | REUSE_PORT;

/// How long after a listener was made a connection can make a pair with it, in nanoseconds. libslirp's takes 1 ms at
/// worst.
pub const PAIR_FOR_NS: u64 = 1_000_000_000;

/// How a socket of the fence was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The thread that called `socket()`, in the initial pid namespace.
    pub tid: u32,
    /// The flags of its owner.
    pub flags: u32,
    /// The time, in nanoseconds since boot. It also identifies the socket among those of its thread.
    pub ns: u64,
}

impl Made {
    /// A socket of which nothing is known.
    pub const UNKNOWN: Self = Self {
        tid: 0,
        flags: 0,
        ns: 0,
    };
}

/// Whether a listener and the socket that connects to it are the two ends of a socket pair, which one thread makes for
/// itself because `socketpair()` does not exist everywhere.
///
/// libslirp does so for `guestfwd=…-cmd:` and `smb=` (`slirp_socketpair_with_oob` in its misc.c): a listener on a port
/// that the kernel chooses, a connection to it by the same thread, both without any socket option. QEMU's other
/// listeners (monitor, VNC, gdbstub, `hostfwd`) have SO_REUSEADDR, and each connection for a guest has three options
/// before it connects. So no guest gets to a listener by this rule.
#[must_use]
#[inline(always)]
pub const fn is_pair(thread: u32, now_ns: u64, listener: Made, client: Made) -> bool {
    is_untouched_of(thread, client)
        && is_untouched_of(thread, listener)
        && listener.ns != 0
        && listener.ns <= client.ns
        && now_ns < listener.ns.saturating_add(PAIR_FOR_NS)
}

/// Whether a thread made a socket, and nobody has set an option of it, as both sockets of a [pair](is_pair) need.
#[must_use]
#[inline(always)]
pub const fn is_untouched_of(thread: u32, made: Made) -> bool {
    const OPTIONS: u32 = UNKNOWN_OPTIONS | GUEST;
    thread != 0 && made.tid == thread && made.flags & OPTIONS == 0
}

/// Whether a rule for the set `self` covers a TCP listener of the fence. A listener that may share its port does not count:
/// the kernel chooses between the listeners of a port for each connection, and the process of one can attach a program
/// that chooses.
#[must_use]
#[inline(always)]
pub const fn is_listener_of_self(listener: Made) -> bool {
    listener.flags & REUSE_PORT == 0
}

/// Whether a rule for the set `self` covers a UDP socket of the fence. Of two UDP sockets that share a port by either
/// option, the last one gets the datagrams, and the former one does as soon as that is closed.
#[must_use]
#[inline(always)]
pub const fn is_receiver_of_self(receiver: Made) -> bool {
    receiver.flags & (REUSE_ADDR | REUSE_PORT) == 0
}

/// Whether a rule for the set `self` covers what a socket of the fence sends. A guest's connections do not count.
#[must_use]
#[inline(always)]
pub const fn may_reach_self(client: Made) -> bool {
    client.flags & GUEST == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: Made = Made {
        tid: 7,
        flags: 0,
        ns: 1000,
    };
    const CLIENT: Made = Made {
        ns: 2000,
        ..LISTENER
    };

    #[test]
    fn two_untouched_sockets_of_one_thread_are_a_pair() {
        assert!(is_pair(7, 3000, LISTENER, CLIENT));
        let last = LISTENER.ns + PAIR_FOR_NS - 1;
        assert!(is_pair(7, last, LISTENER, CLIENT));
    }

    #[test]
    fn other_sockets_are_none() {
        let other_thread = Made { tid: 8, ..CLIENT };
        let older = Made { ns: 999, ..CLIENT };
        assert!(!is_pair(8, 3000, LISTENER, CLIENT));
        assert!(!is_pair(8, 3000, LISTENER, other_thread));
        assert!(!is_pair(7, 3000, LISTENER, other_thread));
        assert!(!is_pair(7, 3000, other_thread, CLIENT));
        assert!(!is_pair(7, 3000, LISTENER, older));
        assert!(!is_pair(7, 1000 + PAIR_FOR_NS, LISTENER, CLIENT));
        for flags in [TOUCHED, REUSE_ADDR, REUSE_PORT, GUEST] {
            let with = |made| Made { flags, ..made };
            assert!(!is_pair(7, 3000, with(LISTENER), CLIENT), "{flags}");
            assert!(!is_pair(7, 3000, LISTENER, with(CLIENT)), "{flags}");
        }
    }

    #[test]
    fn self_is_what_shares_its_port_with_nobody() {
        let with = |flags| Made { flags, ..LISTENER };
        assert!(is_listener_of_self(with(TOUCHED | REUSE_ADDR)));
        assert!(!is_listener_of_self(with(REUSE_PORT)));
        assert!(!is_listener_of_self(with(UNKNOWN_OPTIONS)));
        assert!(is_receiver_of_self(with(TOUCHED)));
        assert!(!is_receiver_of_self(with(REUSE_ADDR)));
        assert!(!is_receiver_of_self(with(REUSE_PORT)));
    }

    #[test]
    fn a_guest_has_no_self() {
        assert!(may_reach_self(CLIENT));
        let flags = TOUCHED | GUEST;
        assert!(!may_reach_self(Made { flags, ..CLIENT }));
    }

    #[test]
    fn what_is_unknown_is_no_pair() {
        assert!(!is_pair(0, 1, Made::UNKNOWN, Made::UNKNOWN));
        assert!(!is_pair(7, 1, Made { ns: 0, ..LISTENER }, CLIENT));
    }
}
