//! The counters of fences as OpenMetrics, over HTTP or in a file.
//!
//! | module | its one job |
//! |---|---|
//! | [`collect`] | collects the counters of fences from the kernel and /run |
//! | [`encode`] | encodes them as OpenMetrics text |
//! | [`address`] | the addresses of the server, and their listeners |
//! | [`serve`] | the HTTP server |
//! | `connections` | how many connections it has at once, and which one is replaced |
//! | `gather` | collects the text in a thread beside the server |
//! | [`textfile`] | a file for node_exporter |

pub mod address;
pub mod collect;
mod connections;
pub mod encode;
mod gather;
pub mod serve;
pub mod textfile;
