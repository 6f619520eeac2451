//! `oci-hook` and `oci-runtime`: fence a container from its first instruction, called by container engines.

pub(super) mod hook;
pub(super) mod runtime;
