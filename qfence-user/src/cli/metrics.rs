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

The directory contrib/ of the repository has a Grafana dashboard and Prometheus alert rules.";

/// The options of `metrics`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct Metrics {
    /// Serve the metrics at /metrics, until SIGTERM
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub listen: Option<Address>,

    /// Write the metrics to a file, for node_exporter's textfile collector
    ///
    /// The file is replaced atomically, and has mode 0644. Only a regular file is replaced.
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    pub textfile: Option<PathBuf>,
}
