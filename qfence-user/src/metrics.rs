//! What fences have counted, for a monitoring system: OpenMetrics, over HTTP or in a file.
//!
//! | module | its one job |
//! |---|---|
//! | [`collect`] | what there is to say of a fence, out of the kernel and /run |
//! | [`encode`] | that as OpenMetrics text |
//! | [`address`] | where it is served, and a listener there |
//! | [`serve`] | the HTTP server |
//! | [`textfile`] | a file for node_exporter |

pub mod address;
pub mod collect;
pub mod encode;
pub mod serve;
pub mod textfile;
