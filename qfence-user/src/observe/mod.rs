//! The counters of fences: for monitoring systems, and in a terminal.

pub mod metrics;
pub mod top;
