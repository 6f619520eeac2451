//! Starts a command in a fence, and receives the signals for it.

pub mod activation;
pub mod child;
mod child_status;
pub mod destinations;
pub mod dispositions;
pub mod environment;
pub mod files;
pub mod front;
pub mod managers;
mod namespace;
pub mod netns;
pub mod notify;
pub mod outside;
pub mod reporter;
pub mod signals;
pub mod stops;
