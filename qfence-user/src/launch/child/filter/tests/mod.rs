//! The filter, evaluated for calls of every architecture and convention.

mod options;

use super::*;
use crate::launch::child::{
    bpf::evaluate::{Call, run},
    calls::{ON_AARCH64, ON_X86_64},
};

const DEFAULT: bool = false;
const COMPAT: bool = true;
const ALL: [bool; 2] = [DEFAULT, COMPAT];
const MACHINES: [&[Convention]; 2] = [ON_X86_64, ON_AARCH64];

const X32: u32 = 0x4000_0000;
/// A value that a caller can leave in the upper halves of registers.
const RUBBISH: u64 = 0xdead_beef_0000_0000;

/// The error of a call; `None` if it is allowed.
fn outcome(
    conventions: &[Convention],
    allow_compat_sockopt: bool,
    arch: u32,
    number: u32,
    arguments: [u64; 3],
) -> Option<i32> {
    let [a, b, c] = arguments;
    let call = Call {
        arch,
        number,
        arguments: [a, b, c, 0x1000, 4, 0],
    };
    match run(&assemble(conventions, allow_compat_sockopt), &call) {
        libc::SECCOMP_RET_ALLOW => None,
        action => {
            assert_eq!(
                action & libc::SECCOMP_RET_ACTION_FULL,
                libc::SECCOMP_RET_ERRNO
            );
            Some(i32::try_from(action & libc::SECCOMP_RET_DATA).unwrap())
        }
    }
}

fn each() -> impl Iterator<Item = (&'static [Convention], Convention)> {
    let of = |machine: &'static [Convention]| machine.iter().map(move |own| (machine, *own));
    MACHINES.into_iter().flat_map(of)
}

#[test]
fn there_is_no_ring_of_compat_calls() {
    for (machine, own) in each() {
        let of = |compat| {
            outcome(
                machine,
                compat,
                own.arch,
                own.io_uring_setup,
                [4, 0x1000, 0],
            )
        };
        assert_eq!(of(DEFAULT), own.is_compat.then_some(libc::ENOSYS));
        assert_eq!(of(COMPAT), None);
    }
}

#[test]
fn there_is_no_x32_but_what_is_no_call_stays_none() {
    let x86 = ON_X86_64[0];
    let of = |compat, number| outcome(ON_X86_64, compat, x86.arch, number, [0; 3]);
    // The number of setsockopt is 541 in x32, and 54 in native calls.
    for call in [0, 54, 541, x86.io_uring_setup, 0x3fff_ffff] {
        assert_eq!(of(DEFAULT, X32 | call), Some(libc::ENOSYS), "{call}");
        assert_eq!(of(COMPAT, X32 | call), None, "{call}");
    }
    for number in [u32::MAX, 0x8000_0000, 0xc000_0036] {
        assert_eq!(of(DEFAULT, number), None, "{number:#x}");
    }
}

#[test]
fn keys_are_looked_for_and_not_called_out_for() {
    for (machine, own) in each() {
        let ask = |compat, callout: u64| {
            let arguments = [0x1000, 0x2000, callout];
            outcome(machine, compat, own.arch, own.request_key, arguments)
        };
        for compat in [DEFAULT, COMPAT] {
            assert_eq!(ask(compat, 0), None, "{own:?}");
            assert_eq!(ask(compat, 0x3000), Some(libc::EPERM), "{own:?}");
        }
        // A 64-bit pointer has two halves, a 32-bit pointer only one.
        let high_alone = (!own.is_compat).then_some(libc::EPERM);
        assert_eq!(ask(DEFAULT, 0x7f_0000_0000), high_alone, "{own:?}");
    }
}

#[test]
fn where_there_is_x32_its_keys_are_no_others() {
    let x86 = ON_X86_64[0];
    let of =
        |compat, call, callout| outcome(ON_X86_64, compat, x86.arch, X32 | call, [0, 0, callout]);
    assert_eq!(of(COMPAT, x86.request_key, 1), Some(libc::EPERM));
    assert_eq!(of(COMPAT, x86.request_key, 0), None);
}

#[test]
fn all_other_calls_are_let_be() {
    for (machine, own) in each() {
        let named = [
            own.setsockopt,
            own.io_uring_setup,
            own.request_key,
            own.ioctl,
            own.open_by_handle_at,
        ];
        for number in (0..600).filter(|number| !named.contains(number)) {
            for compat in ALL {
                let made = outcome(machine, compat, own.arch, number, [1, 6, 6]);
                assert_eq!(made, None, "{own:?} {number}");
            }
        }
    }
}

#[test]
fn calls_of_an_architecture_that_is_not_known_are_none() {
    for machine in MACHINES {
        // AUDIT_ARCH_RISCV64.
        let made = outcome(machine, COMPAT, 0xc000_00f3, 1, [0; 3]);
        assert_eq!(made, Some(libc::ENOSYS));
    }
}

#[test]
fn it_is_of_a_length_that_the_kernel_takes() {
    for machine in MACHINES {
        for compat in ALL {
            // BPF_MAXINSNS.
            assert!(assemble(machine, compat).len() <= 4096);
        }
    }
}

#[test]
fn terminals_and_namespaces_of_others_are_not_asked_for() {
    const FIONREAD: u64 = 0x541b;
    for compat in ALL {
        for (machine, own) in each() {
            let ask = |number, request| outcome(machine, compat, own.arch, number, [3, request, 0]);
            for request in REFUSED_REQUESTS.map(u64::from) {
                for rubbish in [0, RUBBISH] {
                    let asked = ask(own.ioctl, rubbish | request);
                    assert_eq!(asked, Some(libc::EPERM), "{own:?} {request:x}");
                }
                if own.x32.is_some() && compat {
                    assert_eq!(ask(X32 | IOCTL_OF_X32, request), Some(libc::EPERM));
                }
            }
            assert_eq!(ask(own.ioctl, FIONREAD), None);
            assert_eq!(ask(own.open_by_handle_at, 0), Some(libc::EPERM));
        }
    }
}

#[test]
fn the_requests_are_those_of_the_c_library() {
    assert_eq!(u64::from(REFUSED_REQUESTS[0]), libc::TIOCSTI);
    assert_eq!(u64::from(REFUSED_REQUESTS[1]), libc::TIOCLINUX);
    // `TIOCSETD`, which libc lacks (asm-generic/ioctls.h).
    assert_eq!(REFUSED_REQUESTS[2], 0x5423);
}
