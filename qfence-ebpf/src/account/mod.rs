//! Counts the verdicts, and records the refusals.

use aya_ebpf::helpers::bpf_set_retval;

use crate::maps::DENY_RETVAL;

pub(crate) mod count;
pub(crate) mod flows;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod refuse;
pub(crate) mod syn;
pub(crate) mod trace;

/// The return value of a hook that lets the call or the packet proceed.
pub(crate) const PROCEED: i32 = 1;
/// The return value of a hook that fails the call or drops the packet.
pub(crate) const REJECT: i32 = 0;

/// Fails a call with this error, if the kernel lets programs choose the error.
#[inline(always)]
pub(crate) fn fail_with(retval: i32) -> i32 {
    if DENY_RETVAL.load() != 0 {
        // SAFETY: a helper without pointers. It fails for values that are no errno. The call then fails with EPERM, so
        // it is refused in any case.
        unsafe { bpf_set_retval(retval) };
    }
    REJECT
}
