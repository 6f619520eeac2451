//! Metrics as a monitoring system has them: Debian's Prometheus scrapes a fence, and what it says of it is
//! compared with what was done in there.

mod exposition;
mod prometheus;
mod serving;

const METRICS: &str = "127.0.0.1:9469";
