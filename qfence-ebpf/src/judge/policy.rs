//! Looks up verdicts in the policy in force.

use core::hint::cold_path;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use qfence_common::{
    Action, Halves, LookupPath, Nodes as _, Protocol, Query, Verdict, decide, decide_in_front,
    resolved::{Resolved, Resolver, decide_by_name},
    tree::{FLAGS, Front},
    verdict::{HOST, MANY, MONITOR, NAMED, SELF},
};

use crate::maps::{CHANGE, FRONT, POLICY, RESOLVED, RESOLVER, inner::Inner as _};

/// Returns the policy's verdict on a destination.
#[inline(always)]
pub(crate) fn verdict(path: LookupPath, address: Halves, protocol: Protocol, port: u16) -> Verdict {
    let query = Query::of_halves(path, address, protocol, port);
    let verdict = verdict_of_query(query);
    or_by_name(path, query, verdict)
}

/// As [`verdict`]; in the common case without a call of a function. The program then contains the walk once more.
#[inline(always)]
pub(crate) fn verdict_at_once(
    path: LookupPath,
    address: Halves,
    protocol: Protocol,
    port: u16,
) -> Verdict {
    let query = Query::of_halves(path, address, protocol, port);
    let in_front = POLICY.get(0).and_then(|_| verdict_in_front(&query));
    let verdict = in_front.unwrap_or_else(|| {
        cold_path();
        verdict_of_query(query)
    });
    or_by_name(path, query, verdict)
}

/// Returns the verdict on an address by the names that were resolved to it, if there are any, or else that of the tree.
#[inline(always)]
fn or_by_name(path: LookupPath, query: Query, verdict: Verdict) -> Verdict {
    if !may_be_named(path, verdict) {
        return verdict;
    }
    cold_path();
    let Query {
        upper, lower, port, ..
    } = query;
    Verdict::from_bits(qfence_verdict_by_name(upper, lower, port, verdict.bits()))
}

/// Returns the policy's verdict on a destination without rules by name. The flags are the same.
#[inline(always)]
pub(crate) fn verdict_of_tree(
    path: LookupPath,
    address: Halves,
    protocol: Protocol,
    port: u16,
) -> Verdict {
    verdict_of_query(Query::of_halves(path, address, protocol, port))
}

#[inline(always)]
fn verdict_of_query(query: Query) -> Verdict {
    let Query {
        root,
        upper,
        lower,
        port,
    } = query;
    Verdict::from_bits(qfence_verdict(root, upper, lower, port))
}

/// Whether a rule by name might allow what the tree denies. On the loopback path everything reaches the host, so no such
/// rule applies.
#[inline(always)]
fn may_be_named(path: LookupPath, verdict: Verdict) -> bool {
    has_resolver()
        && verdict.action() == Action::Deny
        && verdict.has(NAMED)
        && !verdict.has(HOST)
        && !verdict.has(MANY)
        && path == LookupPath::Address
}

/// Whether the fence has a resolver. Without one it never gets rules by name. It is a global, so the verifier removes all
/// that depends on it from a fence without one. Only its port is read, because a read remains in the program even if nothing
/// depends on it.
#[inline(always)]
pub(crate) fn has_resolver() -> bool {
    let resolver = (&raw const RESOLVER).cast::<Resolver>();
    // SAFETY: a `Global` is its value (`repr(transparent)`).
    let port = unsafe { &raw const (*resolver).port };
    // SAFETY: as above. The loader sets it, so the compiler must not read it.
    unsafe { port.read_volatile() != 0 }
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

/// Whether the policy has rules by name.
#[inline(always)]
pub(crate) fn knows_names() -> bool {
    has_resolver() && Verdict::from_bits(qfence_flags()).has(NAMED)
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

/// Returns the bits of the tree's verdict on a query. If there is no policy in the slot, it denies. Each verdict is that of one
/// policy: the front decides alone, or not at all.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_verdict(root: usize, upper: u64, lower: u64, port: u32) -> u32 {
    let Some(tree) = POLICY.get(0) else {
        return Verdict::NONE.bits();
    };
    let query = Query {
        root,
        upper,
        lower,
        port,
    };
    match verdict_in_front(&query) {
        Some(verdict) => verdict.bits(),
        None => decide(tree, &query).bits(),
    }
}

/// Returns the verdict on a query if the first nodes of the policy decide it.
#[inline(always)]
fn verdict_in_front(query: &Query) -> Option<Verdict> {
    decide_in_front(front()?, query)
}

/// Returns the first nodes of the policy in force; `None` while it is replaced.
#[inline(always)]
fn front() -> Option<&'static Front> {
    // SAFETY: null, or the value of the map, aligned, which stays readable until the program ends (RCU). Only at the
    // end of the fence it is changed, to zeros.
    unsafe { FRONT.get(0)?.find(&0).as_ref() }
}

/// The least time, in nanoseconds, by which a use moves the end of an address. A word that is not written stays in the
/// caches of other CPUs.
const MOVED_BY_NS: u64 = 1_000_000_000;

/// How often an entry is read whose place another one takes meanwhile.
const READINGS: u32 = 2;

/// Returns the bits of the verdict on an address that the tree denies, by the names that were resolved to it. Its use makes
/// the address last longer.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_verdict_by_name(upper: u64, lower: u64, port: u32, denied: u32) -> u32 {
    // Older kernels verify it in each fence.
    if !has_resolver() {
        return denied;
    }
    let address = Halves { upper, lower };
    let Some(tree) = POLICY.get(0) else {
        return denied;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut readings = 0;
    while readings < READINGS {
        readings += 1;
        let Some(entry) = RESOLVED.get_ptr_mut(address) else {
            return denied;
        };
        // SAFETY: memory of the map, aligned and alive as long as the program runs. It can become another entry: see below.
        let resolved: &Resolved = unsafe { &*entry };
        if resolved.is_over(now) {
            return denied;
        }
        let expires = resolved.expires_after_use(now);
        let is_moved = expires > resolved.expires_ns.saturating_add(MOVED_BY_NS);
        let verdict = decide_by_name(tree, Verdict::from_bits(denied), port, &resolved.grants);
        // What was read could be the grants of another address: see `RESOLVED`. An entry that was renewed is read again.
        if RESOLVED.get_ptr_mut(address) != Some(entry) {
            continue;
        }
        if verdict.action() == Action::Deny {
            return denied;
        }
        if is_moved {
            // SAFETY: as above.
            let place = unsafe { &raw mut (*entry).expires_ns };
            // SAFETY: as above. The value is one word, so other CPUs never see half of it. If it is another address's by now,
            // that lasts up to a minute longer, but not beyond its own `until_ns`.
            unsafe { place.write_volatile(expires) };
        }
        return verdict.bits();
    }
    denied
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
