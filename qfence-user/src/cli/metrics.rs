//! The command line of `metrics`.

use std::path::PathBuf;

use clap::Args;

use crate::observe::metrics::address::Address;

const NOTES: &str = "\
Examples:
  sudo qfence-user metrics
  sudo qfence-user metrics --textfile /var/lib/prometheus/node-exporter/qfence.prom
  sudo qfence-user metrics --listen 127.0.0.1:9469
  curl --unix-socket /run/qfence.sock http://localhost/metrics   (--listen unix:/run/qfence.sock)

The repository has a dashboard for Grafana and alert rules for Prometheus, in contrib/.";

/// `qfence-user metrics`.
///
/// OpenMetrics text of all fences of the host: attempts and what became of them, verdicts by rule and
/// by protocol, traffic, policies. No label is up to what runs in a fence.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct Metrics {
    /// Serve it at /metrics, until SIGTERM
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub listen: Option<Address>,

    /// Write it to a file, for node_exporter's textfile collector
    ///
    /// The file is made anew, with mode 0644, and put in place of the one before in one step; only a regular
    /// file is replaced.
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    pub textfile: Option<PathBuf>,
}
