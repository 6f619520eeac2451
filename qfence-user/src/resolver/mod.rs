//! The resolver of a fence: a DNS server that answers the names that rules allow, and puts their addresses in force
//! before it answers.
//!
//! | part | its job |
//! |---|---|
//! | [`ends`] | what the resolver needs of its fence: rules, map, record |
//! | [`sockets`] | the sockets on which it listens |

pub mod ends;
pub mod sockets;

pub use ends::{
    Askers, Ends, Full, Guarded, Lookup, Nameservers, Permission, Publisher, Reporter, Rules,
    Transport, Verdict,
};
pub use sockets::{Endpoint, Sockets};
