//! libvirt's system instance: domains that run, the XML of a domain that is about to start, and the partition that has
//! its cgroup.

pub mod definition;
pub(super) mod domain;
pub mod options;
pub mod partition;
pub mod port;
mod xml;
