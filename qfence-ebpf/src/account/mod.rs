//! Counts the verdicts, and records the refusals.

pub(crate) mod count;
pub(crate) mod record;
pub(crate) mod refuse;
pub(crate) mod trace;

/// The return value of a hook that lets the call or the packet proceed.
pub(crate) const PROCEED: i32 = 1;
/// The return value of a hook that fails the call or drops the packet.
pub(crate) const REJECT: i32 = 0;
