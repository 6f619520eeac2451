//! Starts a command inside of a fence, and passes signals on to it.

pub mod child;
mod child_status;
pub mod dispositions;
pub mod signals;
pub mod stops;
