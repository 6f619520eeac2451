//! The code that the kernel side and the user side of qfence share: the types in the maps, the names of maps and
//! programs, and the decision itself. It is `no_std` and makes no system calls; kernel and tests run the same code.
#![no_std]

pub mod abi;
pub mod address;
pub mod device;
pub mod event;
pub mod flow;
pub mod frame;
pub mod hook;
pub mod listing;
pub mod local_in;
pub mod manager;
pub mod netns;
pub mod own;
pub mod packet;
pub mod peer;
pub mod port;
pub mod proof;
pub mod protocol;
pub mod pulse;
pub mod resolved;
pub mod syn;
pub mod tally;
pub mod tree;
pub mod unix;
pub mod verdict;

pub use address::{Address, Halves, LookupPath};
pub use event::{AttemptKey, Comm, Event, NO_UID, NamedEvent, Origin, Repeats};
pub use flow::{Flow, FlowKey, OTHERS};
pub use hook::{HOOKS, Hook};
pub use packet::{Packet, Payload};
pub use peer::Peer;
pub use protocol::Protocol;
pub use pulse::{Change, Marks, Pulse};
pub use syn::RefusedSyn;
pub use tally::{Direction, Hits, Outcome, Passed, RuleCounts, Sighting, Tally, Traffic};
pub use tree::{Node, Nodes, Query, decide, decide_in_front};
pub use verdict::{Action, Verdict};
