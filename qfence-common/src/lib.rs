//! What both sides of qfence share: the types in the maps, the names of the maps and programs, and
//! the decision itself. `no_std`, free of system calls, the same code in the kernel and in tests.
#![no_std]

pub mod abi;
pub mod address;
pub mod decide;
pub mod event;

pub use address::Address;
pub use decide::{Action, Clause, Decision, Entry, Protocol, decide};
pub use event::{Event, Hook};
