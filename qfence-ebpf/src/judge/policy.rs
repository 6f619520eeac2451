//! Asks the policy in force.

use qfence_common::{
    Halves, LookupPath, Nodes as _, Protocol, Query, Verdict, decide,
    tree::FLAGS,
    verdict::{MANY, MONITOR},
};

use crate::maps::{CHANGE, POLICY};

/// The policy's verdict on a destination.
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

/// Whether the policy is only monitored; without one nothing is.
#[inline(always)]
pub(crate) fn monitors() -> bool {
    Verdict::from_bits(qfence_flags()).has(MONITOR)
}

/// Whether some datagram to an IPv4 address that names many is let through, or would be refused and is only
/// monitored.
#[inline(always)]
pub(crate) fn allows_broadcasts() -> bool {
    let flags = Verdict::from_bits(qfence_flags());
    flags.has(MANY) || flags.has(MONITOR)
}

/// Whether the connections of TCP are judged that stand.
#[inline(always)]
pub(crate) fn judges_standing() -> bool {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    unsafe { CHANGE.get_ptr(0).and_then(|change| change.as_ref()) }
        .is_none_or(|change| change.judges_standing != 0)
}

// The functions of this crate that are global are so for the verifier's sake: it looks at each once for a
// program, by itself, and not along every way that leads there and on from there (`do_check_subprogs` in
// kernel/bpf/verifier.c). That takes numbers and the program's context alone as arguments (before Linux 5.12),
// five of them, and a number for a result.

/// The bits of the policy's verdict on a query. No policy in the slot denies.
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

/// The bits of a verdict with the flags that all of the policy have; without a policy it has none.
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
