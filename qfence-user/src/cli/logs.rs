//! The command line of `logs`.

use clap::Args;

use crate::{policy::rule::Match, record::filter::Since};

const NOTES: &str = "\
Examples:
  sudo qfence-user logs vm1
  sudo qfence-user logs vm1 -f --dest tcp:127.0.0.1
  sudo qfence-user logs vm1 --since 10m --json --dest metadata

The record of a fence is in memory, under /run/qfence: its last 256 to 512 kB, for as long as there is the
fence. For more, and for longer, give `exec` a --log. Of a fence that has lost its supervisor nobody reads what is tried
until this does; it says how many attempts were lost meanwhile, if there was no room for them. With --follow it says on
standard error how many lines are gone, if they were replaced by newer ones before it came to read them.

At the end it says on standard error what the kernel has counted since the fence was started: the first of
each kind, those repeated, and those lost, which are all. See `qfence-user exec --help` for the fields of
a JSON line.";

/// `qfence-user logs`.
#[derive(Debug, Args)]
#[command(after_help = NOTES, override_usage = "qfence-user logs [OPTIONS] NAME")]
pub struct Logs {
    /// The name of the fence
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Go on with what is tried from now on, until the fence ends
    #[arg(long, short)]
    pub follow: bool,

    /// Leave out what was earlier: a moment (RFC 3339), or how long ago (90s, 10m, 2h)
    #[arg(long, value_name = "TIME|AGO")]
    pub since: Option<Since>,

    /// Leave out attempts to reach other destinations: an address, prefix, or set, as in a rule
    #[arg(long, value_name = "[PROTOCOL:]DESTINATION[:PORTS]")]
    pub dest: Option<Match>,

    /// The JSON lines as they are
    #[arg(long)]
    pub json: bool,
}
