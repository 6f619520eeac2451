//! Socket options.

use super::*;

/// The options that the eBPF programs judge in native calls.
fn options() -> Vec<(u32, u32)> {
    let v4 = JOINS_V4
        .iter()
        .chain(&JOINS)
        .map(|name| (IPPROTO_IP, *name));
    let v6 = JOINS_V6
        .iter()
        .chain(&JOINS)
        .map(|name| (IPPROTO_IPV6, *name));
    [(SOL_SOCKET, SO_BROADCAST)]
        .into_iter()
        .chain(v4)
        .chain(v6)
        .collect()
}

#[test]
fn the_options_are_those_of_the_c_library() {
    let is = |ours: u32, theirs: i32| assert_eq!(ours, theirs.unsigned_abs());
    is(SOL_SOCKET, libc::SOL_SOCKET);
    is(SO_BROADCAST, libc::SO_BROADCAST);
    is(SO_REUSEADDR, libc::SO_REUSEADDR);
    is(GROUPS[0], libc::SO_REUSEPORT);
    is(GROUPS[1], libc::SO_ATTACH_REUSEPORT_CBPF);
    is(GROUPS[2], libc::SO_ATTACH_REUSEPORT_EBPF);
    is(IPPROTO_IP, libc::IPPROTO_IP);
    is(IPPROTO_IPV6, libc::IPPROTO_IPV6);
    for (ours, theirs) in JOINS_V4.into_iter().zip([
        libc::IP_ADD_MEMBERSHIP,
        libc::IP_UNBLOCK_SOURCE,
        libc::IP_BLOCK_SOURCE,
        libc::IP_ADD_SOURCE_MEMBERSHIP,
        libc::IP_DROP_SOURCE_MEMBERSHIP,
        libc::IP_MSFILTER,
    ]) {
        is(ours, theirs);
    }
    is(JOINS_V6[0], libc::IPV6_ADD_MEMBERSHIP);
    is(JOINS_V6[1], libc::IPV6_JOIN_ANYCAST);
    for (ours, theirs) in JOINS.into_iter().zip([
        libc::MCAST_JOIN_GROUP,
        libc::MCAST_BLOCK_SOURCE,
        libc::MCAST_UNBLOCK_SOURCE,
        libc::MCAST_JOIN_SOURCE_GROUP,
        libc::MCAST_LEAVE_SOURCE_GROUP,
        libc::MCAST_MSFILTER,
    ]) {
        is(ours, theirs);
    }
}

#[test]
fn compat_calls_do_not_set_what_native_ones_are_asked_about() {
    for (machine, own) in each() {
        for (level, option) in options() {
            let set = |compat, rubbish| {
                let arguments = [3, rubbish | u64::from(level), rubbish | u64::from(option)];
                outcome(machine, compat, own.arch, own.setsockopt, arguments)
            };
            for rubbish in [0, RUBBISH] {
                let refused = own.is_compat.then_some(libc::EPERM);
                assert_eq!(set(DEFAULT, rubbish), refused, "{own:?} {level} {option}");
                assert_eq!(set(COMPAT, rubbish), None);
            }
        }
    }
}

#[test]
fn compat_calls_make_no_sockets_that_share_a_port() {
    let sharing = [
        (SO_REUSEADDR, 0),
        (GROUPS[0], libc::ENOPROTOOPT),
        (GROUPS[1], libc::ENOPROTOOPT),
        (GROUPS[2], libc::ENOPROTOOPT),
    ];
    for (machine, own) in each() {
        for (option, errno) in sharing {
            for rubbish in [0, RUBBISH] {
                let arguments = [
                    3,
                    rubbish | u64::from(SOL_SOCKET),
                    rubbish | u64::from(option),
                ];
                let set = |compat| outcome(machine, compat, own.arch, own.setsockopt, arguments);
                assert_eq!(set(DEFAULT), own.is_compat.then_some(errno), "{option}");
                assert_eq!(set(COMPAT), None);
            }
        }
    }
}

#[test]
fn other_options_are_let_be_and_so_is_leaving() {
    // SO_KEEPALIVE, IP_TTL, IP_DROP_MEMBERSHIP, IPV6_V6ONLY, IPV6_DROP_MEMBERSHIP, TCP_NODELAY, and the number of
    // SO_BROADCAST at another level.
    let others = [
        (1, 9),
        (0, 2),
        (0, 36),
        (41, 26),
        (41, 21),
        (6, 1),
        (6, 6),
        (17, 35),
    ];
    for (machine, own) in each() {
        for (level, option) in others {
            for compat in ALL {
                let arguments = [3, level, option];
                let set = outcome(machine, compat, own.arch, own.setsockopt, arguments);
                assert_eq!(set, None, "{own:?} {level} {option}");
            }
        }
    }
}

#[test]
fn socketcall_sets_no_option_at_all() {
    let i386 = ON_X86_64[1];
    let number = i386.socketcall.unwrap();
    let call =
        |compat, which: u64| outcome(ON_X86_64, compat, i386.arch, number, [which, 0x1000, 0]);
    for rubbish in [0, RUBBISH] {
        assert_eq!(call(DEFAULT, rubbish | 14), Some(libc::EPERM));
    }
    assert_eq!(call(COMPAT, 14), None);
    // From SYS_SOCKET to SYS_SENDMMSG.
    for which in (1..=20).filter(|which| *which != 14) {
        assert_eq!(call(DEFAULT, which), None, "{which}");
    }
}
