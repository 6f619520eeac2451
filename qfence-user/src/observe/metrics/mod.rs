//! What fences have counted, for a monitoring system: OpenMetrics, over HTTP or in a file.
//!
//! | module | its one job |
//! |---|---|
//! | [`collect`] | what there is to say of a fence, out of the kernel and /run |
//! | [`encode`] | that as OpenMetrics text |
//! | [`address`] | where it is served, and a listener there |
//! | [`serve`] | the HTTP server |
//! | `connections` | how many there are of it at once, and which one goes |
//! | `gather` | the text, collected beside the server |
//! | [`textfile`] | a file for node_exporter |

pub mod address;
pub mod collect;
mod connections;
pub mod encode;
mod gather;
pub mod serve;
pub mod textfile;
