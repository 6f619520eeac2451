//! Looks up verdicts in the policy in force.

use qfence_common::{
    Halves, LookupPath, Nodes as _, Protocol, Query, Verdict, decide,
    tree::FLAGS,
    verdict::{MANY, MONITOR, SELF},
};

use crate::maps::{CHANGE, POLICY};

/// Returns the policy's verdict on a destination.
#[inline(always)]
pub(crate) fn verdict(path: LookupPath, address: Halves, protocol: Protocol, port: u16) -> Verdict {
    let query = Query::of_halves(path, address, protocol, port);
    let Query {
        root,
        upper,
        lower,
        port,
    } = query;
    Verdict::from_bits(qfence_verdict(root, upper, lower, port))
}

/// Whether the policy is only monitored. False if there is no policy.
#[inline(always)]
pub(crate) fn monitors() -> bool {
    Verdict::from_bits(qfence_flags()).has(MONITOR)
}

/// Whether the policy lets any datagram to an IPv4 broadcast or multicast address through, by a rule or in monitor
/// mode.
#[inline(always)]
pub(crate) fn allows_broadcasts() -> bool {
    let flags = Verdict::from_bits(qfence_flags());
    flags.has(MANY) || flags.has(MONITOR)
}

/// Whether the policy has a rule for the set `self`.
#[inline(always)]
pub(crate) fn knows_self() -> bool {
    Verdict::from_bits(qfence_flags()).has(SELF)
}

/// Whether existing TCP connections are judged.
#[inline(always)]
pub(crate) fn judges_standing() -> bool {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    unsafe { CHANGE.get_ptr(0).and_then(|change| change.as_ref()) }
        .is_none_or(|change| change.judges_standing != 0)
}

// Functions in this crate are global for the sake of the verifier. It checks a global function once for each program,
// separately, and not along each path that leads to it and on from it (`do_check_subprogs` in kernel/bpf/verifier.c). A
// global function can take at most five arguments. Before Linux 5.12 they can only be numbers and the program's
// context. It must return a number.

/// Returns the bits of the policy's verdict on a query. If there is no policy in the slot, it denies.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_verdict(root: u32, upper: u64, lower: u64, port: u32) -> u32 {
    match POLICY.get(0) {
        Some(tree) => {
            let query = Query {
                root,
                upper,
                lower,
                port,
            };
            decide(tree, &query).bits()
        }
        None => Verdict::NONE.bits(),
    }
}

/// Returns the bits of a verdict with the flags of the policy as a whole. Without a policy no flag is set.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_flags() -> u32 {
    POLICY
        .get(0)
        .and_then(|tree| tree.read(FLAGS))
        .and_then(|node| node.verdict())
        .unwrap_or(Verdict::NONE)
        .bits()
}
