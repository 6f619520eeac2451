//! What both sides of qfence share: the types in the maps, the names of the maps and programs, and
//! the decision itself. `no_std`, free of system calls, the same code in the kernel and in tests.
#![no_std]

pub mod abi;
pub mod address;
pub mod decide;
pub mod device;
pub mod entry;
pub mod event;
pub mod packet;
pub mod peer;
pub mod proof;
pub mod tally;

pub use address::{Address, Path};
pub use decide::{Action, Decision, Nodes, Protocol, decide};
pub use entry::{Entry, Node, Verdict};
pub use event::{Event, Hook};
pub use packet::Packet;
pub use peer::Peer;
pub use tally::{Hits, Sighting};
