//! Logs each decision, in the object for tracing.

use crate::subject::destination::Destination;
#[cfg(feature = "trace")]
use aya_log_ebpf::debug;
#[cfg(feature = "trace")]
use qfence_common::Hook;
use qfence_common::{Outcome, Verdict};

/// Logs the decision on a destination at the hook with number `HOOK`.
///
/// The hook is a const parameter, so that its name is a constant of each program. A table of names would consist of
/// pointers, which the loader cannot relocate.
#[cfg(feature = "trace")]
#[inline(always)]
pub(crate) fn trace<const HOOK: u32>(to: &Destination, outcome: Outcome, verdict: Verdict) {
    debug!(
        // The macro asks for a context, and does not use it.
        to,
        "{}: {:i} port {} protocol {} {} by rule {}",
        const { hook_name(HOOK) },
        to.address.address(),
        to.port,
        to.protocol.0,
        outcome_name(outcome),
        verdict.rule()
    );
}

/// Does nothing.
#[cfg(not(feature = "trace"))]
#[inline(always)]
pub(crate) fn trace<const HOOK: u32>(_: &Destination, _: Outcome, _: Verdict) {}

/// The names have equal lengths, so that the compiler only has to choose between two pointers.
#[cfg(feature = "trace")]
#[inline(always)]
const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Sent => "allowed",
        _ => "refused",
    }
}

#[cfg(feature = "trace")]
const fn hook_name(number: u32) -> &'static str {
    match Hook::from_number(number) {
        Some(hook) => hook.name(),
        None => "unknown hook",
    }
}
