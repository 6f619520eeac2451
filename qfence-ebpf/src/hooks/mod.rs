//! What the program for each hook does.

pub(crate) mod call;
pub(crate) mod device;
pub(crate) mod options;
pub(crate) mod packet;
pub(crate) mod socket;
