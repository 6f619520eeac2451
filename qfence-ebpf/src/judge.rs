//! From a destination to a verdict, and from a refusal to its record.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_ktime_get_boot_ns, bpf_set_retval,
    },
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use qfence_common::{Action, Decision, Event, Hook, abi::Counter, address::V4_PREFIX_BITS, decide};

use crate::{
    destination::Destination,
    maps::{COUNTERS, DENY_RETVAL, EVENTS, POLICY},
};

/// What a hook returns to let the call go on.
const PROCEED: i32 = 1;
/// What a hook returns to fail the call.
const REJECT: i32 = 0;

/// Judges one destination at the hook of number `HOOK`; the hook's return value.
///
/// The number is a parameter of the type so that its name, in the trace, is a constant of each
/// program's rather than a table of pointers, which the loader could not relocate.
#[inline(always)]
pub(crate) fn judge<const HOOK: u32>(ctx: &SockAddrContext, to: Destination) -> i32 {
    let decision = look_up(&to);
    debug!(
        ctx,
        "{}: {:i} port {} protocol {} {} by rule {}",
        const { hook_name(HOOK) },
        to.address,
        to.port,
        to.protocol.0,
        verdict_name(decision.action),
        decision.rule
    );
    match decision.action {
        Action::Allow => PROCEED,
        Action::Deny => refuse(&to, HOOK, decision.rule),
    }
}

/// The policy's word on a destination. No policy in the slot, or no prefix that holds the address
/// (the compiler always writes `::/0`): denied.
#[inline(always)]
fn look_up(to: &Destination) -> Decision {
    let bits = u32::from(V4_PREFIX_BITS) + 32;
    let key = Key::new(bits, to.address);
    let entry = POLICY.get(0).and_then(|trie| trie.get(&key));
    decide(entry, to.protocol, to.port)
}

/// Counts and records a refusal, and sets the error that the caller sees.
#[inline(always)]
fn refuse(to: &Destination, hook: u32, rule: u32) -> i32 {
    count(Counter::Refused);
    if !record(to, hook, rule) {
        count(Counter::Lost);
    }
    let retval = DENY_RETVAL.load();
    if retval != 0 {
        // SAFETY: a helper without pointers. It fails for values that are no errno, and the call
        // then fails with EPERM: refused all the same.
        unsafe { bpf_set_retval(retval) };
    }
    REJECT
}

/// Puts the refusal into the ring; false if there was no room.
#[inline(always)]
fn record(to: &Destination, hook: u32, rule: u32) -> bool {
    let Some(mut slot) = EVENTS.reserve(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: a helper without arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    slot.write(Event {
        boot_ns,
        cgroup,
        address: to.address,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        port: u32::from(to.port),
        protocol: to.protocol.0,
        hook,
        rule,
        reserved: 0,
    });
    slot.submit(0);
    true
}

/// Of one length, so that the choice is one of pointers alone.
#[inline(always)]
const fn verdict_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allowed",
        Action::Deny => "refused",
    }
}

const fn hook_name(number: u32) -> &'static str {
    match Hook::from_number(number) {
        Some(hook) => hook.name(),
        None => "unknown hook",
    }
}

#[inline(always)]
fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the map's value, aligned and alive as long as the program runs. Atomic although it
        // is this CPU's own: another task may preempt the program and run it here too.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
    }
}
