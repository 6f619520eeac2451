//! Starts a command in a fence, and receives the signals for it.

pub mod child;
mod child_status;
pub mod dispositions;
pub mod managers;
pub mod signals;
pub mod stops;
