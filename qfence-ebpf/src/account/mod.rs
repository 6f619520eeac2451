//! Accounts for what was decided: counters, and the record of what was refused.

pub(crate) mod count;
pub(crate) mod record;
pub(crate) mod refuse;
pub(crate) mod trace;

/// What a hook returns to let the call or the packet go on.
pub(crate) const PROCEED: i32 = 1;
/// What a hook returns to fail the call, or to drop the packet.
pub(crate) const REJECT: i32 = 0;
