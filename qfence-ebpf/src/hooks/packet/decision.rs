//! Logs decisions on packets, in the object for tracing.

use crate::subject::destination::Destination;

/// Logs the decision on a packet at the hook with number `HOOK`, given as a packed judgement.
#[cfg(feature = "trace")]
#[inline(always)]
pub(super) fn note_decision<const HOOK: u32>(to: &Destination, judgement: u64) {
    let rest = HOOK << tracing::HOOK_SHIFT | to.protocol.0 << tracing::PROTOCOL_SHIFT;
    let rest = rest | u32::from(to.port);
    tracing::qfence_trace_packet(to.address.upper, to.address.lower, rest, judgement);
}

/// Does nothing.
#[cfg(not(feature = "trace"))]
#[inline(always)]
pub(super) fn note_decision<const HOOK: u32>(_: &Destination, _: u64) {}

#[cfg(feature = "trace")]
mod tracing {
    use qfence_common::{Halves, Hook, LookupPath, Protocol};

    use crate::{account::trace::trace, judge::Judgement, subject::destination::Destination};

    /// Where the protocol's number begins, above the port.
    pub(super) const PROTOCOL_SHIFT: u32 = 16;
    /// Where the hook's number begins, above that of the protocol.
    pub(super) const HOOK_SHIFT: u32 = 24;
    const EGRESS: u32 = Hook::Egress as u32;
    const INGRESS: u32 = Hook::Ingress as u32;

    /// Logs the decision on a packet to an address; `rest` has the port and the numbers of protocol and hook. Returns 0,
    /// because a global function must return a value.
    ///
    /// Global for the sake of the stack: what it takes is no part of its callers', whose other calls need nearly all of the
    /// 512 bytes on Linux 6.1.
    #[inline(never)]
    #[unsafe(no_mangle)]
    pub(super) extern "C" fn qfence_trace_packet(
        upper: u64,
        lower: u64,
        rest: u32,
        judgement: u64,
    ) -> u32 {
        let to = Destination {
            address: Halves { upper, lower },
            port: u16::try_from(rest & 0xffff).unwrap_or(0),
            protocol: Protocol(rest >> PROTOCOL_SHIFT & 0xff),
            path: LookupPath::Address,
        };
        let Judgement {
            outcome, verdict, ..
        } = Judgement::unpack(judgement);
        if rest >> HOOK_SHIFT == EGRESS {
            trace::<EGRESS>(&to, outcome, verdict);
        } else {
            trace::<INGRESS>(&to, outcome, verdict);
        }
        0
    }
}
