//! Starts a command inside of a fence, and passes signals on to it.

mod changes;
pub mod child;
pub mod dispositions;
pub mod signals;
pub mod stops;
