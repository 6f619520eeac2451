//! The hooks for packets: judges outgoing packets, and examines incoming packets from the host.

mod decision;
mod egress;
mod ingress;
mod standing;

pub(crate) use egress::judge_egress;
pub(crate) use ingress::judge_ingress;

use aya_ebpf::programs::SkBuffContext;
use qfence_common::{Outcome, Payload};

use crate::account::{PROCEED, REJECT, refuse::Rest};

/// The index of the loopback device, in every network namespace (`LOOPBACK_IFINDEX` in include/net/flow.h;
/// `dev_index_reserve` makes it the first).
pub(crate) const LOOPBACK: u32 = 1;

/// Converts the number of an outcome to the return value of the hook.
#[inline(always)]
const fn return_value(outcome: u32) -> i32 {
    match Outcome::of_number(outcome) {
        Outcome::Refused => REJECT,
        _ => PROCEED,
    }
}

/// Returns the parts of a refusal other than the address.
#[inline(always)]
fn rest(hook: u32, payload: Payload) -> Rest {
    Rest {
        hook,
        protocol: payload.protocol(),
        port: payload.destination_port(),
        source_port: payload.source_port(),
    }
}

#[inline(always)]
fn is_loopback(ctx: &SkBuffContext) -> bool {
    // SAFETY: the hook's own context; the verifier checks each access.
    unsafe { (*ctx.skb.skb).ifindex == LOOPBACK }
}
