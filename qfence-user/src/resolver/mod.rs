//! The resolver of a fence: a DNS server that answers the names that rules allow, and puts their addresses in force
//! before it answers. `docs/resolver.md` has its bounds and the reasons.
//!
//! | part | its job |
//! |---|---|
//! | [`ends`] | what the resolver needs of its fence: rules, map, record |
//! | [`sockets`] | the sockets on which it listens |
//! | [`thread`] | its thread |
//! | `serve` | queries by UDP and TCP |
//! | [`question`], `edns`, [`answer`] | reads queries, writes answers |
//! | `desk`, `opening` | decides on each question, puts addresses in force, reports |
//! | `flight` | questions on their way to nameservers |
//! | `bucket` | the rates of queries and of questions to nameservers |
//! | `cache` | answers of nameservers, as long as they are valid |
//! | `upstream`, [`found`] | asks the nameservers, reads their answers |
//! | `reach` | whether the nameservers answer at all |
//! | [`counts`] | counters |

pub mod answer;
mod bucket;
mod cache;
pub mod counts;
mod desk;
mod edns;
pub mod ends;
mod flight;
pub mod found;
mod opening;
pub mod question;
mod reach;
mod serve;
pub mod sockets;
#[cfg(test)]
mod tests;
pub mod thread;
mod upstream;

pub use ends::{
    Askers, Ends, Guarded, Lookup, Nameservers, NotPublished, Permission, Publisher, Reporter,
    Rules, Transport, Verdict,
};
pub use sockets::{Endpoint, Sockets};
pub use thread::{Handle, Resolver};
