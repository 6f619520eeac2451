//! Metrics: what Prometheus reads, how they are printed, written and served.

mod exposition;
mod prometheus;
mod serving;

/// The address at which a fence serves its metrics.
const METRICS: &str = "127.0.0.1:9469";
