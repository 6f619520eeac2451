//! Rules by name, with the programs of a fence at a cgroup, and a resolver of the test's own.

pub(crate) mod bed;
mod led;
mod named;
