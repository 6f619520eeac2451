//! The facts of this host that sets are made of: its addresses and its nameservers.

pub mod netlink;
pub mod resolv;
