//! Lets connections through that the policy denies, if they lead to a listener of the fence's own
//! ([`qfence_common::own`]).
//!
//! Such are the pairs that libslirp makes, and what rules for the set `self` allow.
//!
//! Between the check at connect() and the handshake, the listener can be closed, and a service of the host can take its
//! port. So it is looked up three times: at connect(), when the SYN leaves, and when the answer arrives. No service
//! accepts a connection before it has the answer to its answer. Later segments belong to the connection that was
//! accepted, whatever happens to its listener. For UDP there is no such answer: each datagram is checked when it leaves.

pub(crate) mod call;
pub(crate) mod packet;

use qfence_common::{Halves, LookupPath, Protocol, Verdict, verdict};

use super::policy;

/// Whether a rule for `self` covers a datagram: its destination port, or (for an answer) the port of its socket.
#[inline(always)]
fn covers_datagram(denied: Verdict, path: LookupPath, to: Halves, local_port: u16) -> bool {
    denied.has(verdict::SELF)
        || local_port != 0
            && policy::verdict(path, to, Protocol::UDP, local_port).has(verdict::SELF)
}
