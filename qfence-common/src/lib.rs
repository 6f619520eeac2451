//! What both sides of qfence share: the types in the maps, the names of the maps and programs, and
//! the decision itself. `no_std`, free of system calls, the same code in the kernel and in tests.
#![no_std]

pub mod abi;
pub mod address;
pub mod device;
pub mod event;
pub mod packet;
pub mod peer;
pub mod proof;
pub mod protocol;
pub mod tally;
pub mod tree;
pub mod verdict;

pub use address::{Address, Path};
pub use event::{Event, Hook, Kind, NO_UID, Origin, Repeats};
pub use packet::Packet;
pub use peer::Peer;
pub use protocol::Protocol;
pub use tally::{Hits, Sighting, Traffic, Way};
pub use tree::{Node, Nodes, Query, decide};
pub use verdict::{Action, Verdict};
