//! The command line of `logs`.

use clap::Args;

use crate::{policy::rule::Match, record::filter::Since};

const NOTES: &str = "\
Examples:
  sudo qfence-user logs vm1
  sudo qfence-user logs vm1 -f --dest tcp:127.0.0.1
  sudo qfence-user logs vm1 --since 10m --json --dest metadata
  sudo qfence-user logs job --dest '*.example.org'
  sudo qfence-user logs vms --workload web.service

The record is in memory, under /run/qfence: the last 256 to 512 kB, until the fence is removed. For a \
larger or permanent log, start `exec` with --log. If a fence has lost its supervisor, `logs` itself reads \
the new attempts from the kernel, and reports how many were lost before it ran because there was no room \
for them. With --follow, it reports on standard error how many lines were overwritten before it read them.

At the end, `logs` prints the kernel's counts since the start of the fence on standard error: first \
attempts, repeats and lost ones, which together are all attempts. For the fields of a JSON line see \
`qfence-user exec --help`.";

/// `qfence-user logs`.
#[derive(Debug, Args)]
#[command(after_help = NOTES, override_usage = "qfence-user logs [OPTIONS] NAME")]
pub struct Logs {
    /// The name of the fence
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Continue with new attempts until the fence ends
    #[arg(long, short)]
    pub follow: bool,

    /// Show only attempts since this time (RFC 3339), or of the last 90s, 10m, 2h
    #[arg(long, value_name = "TIME|AGO")]
    pub since: Option<Since>,

    /// Show only attempts to reach this address, prefix, set or name, and look-ups of the name; the syntax is that of a rule
    #[arg(long, value_name = "[PROTOCOL:]DESTINATION[:PORTS]")]
    pub dest: Option<Match>,

    /// Show only attempts of this unit, container, domain or pod, in a fence that `attach` has put around several
    #[arg(long, value_name = "NAME|ID")]
    pub workload: Option<String>,

    /// Print the JSON lines
    #[arg(long)]
    pub json: bool,
}
