//! The command line of `set`.

use clap::{ArgGroup, Args};

use super::PolicyArgs;
use crate::policy::Dns;

/// The options of `set` of which at least one is required.
const CHANGES: [&str; 8] = [
    "allow", "deny", "default", "profile", "dns", "monitor", "enforce", "reload",
];

const NOTES: &str = "\
Examples:
  sudo qfence-user set vm1 --allow tcp:127.0.0.1:5432
  sudo qfence-user set vm1 --profile internet-only
  sudo qfence-user set vm1 --monitor
  sudo qfence-user set vm1 --enforce --reload

For the syntax of rules see `qfence-user exec --help`.

Exit status:
  0    the policy is in force, and no connection remains that it denies
  125  nothing was changed; or, if the message says so, connections could not
       be ended";

/// The options of `set`.
#[derive(Debug, Args)]
#[command(after_help = NOTES, override_usage = "qfence-user set NAME [OPTIONS]", group = ArgGroup::new("change").args(CHANGES).required(true).multiple(true))]
pub struct Set {
    /// The name of the fence
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Allowed and denied destinations
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Whether the profile's exception for nameservers applies
    #[arg(long, value_enum)]
    pub dns: Option<Dns>,

    /// Stop refusing: allow and log attempts that the policy denies
    #[arg(long, conflicts_with = "enforce")]
    pub monitor: bool,

    /// End monitor mode: refuse again
    #[arg(long)]
    pub enforce: bool,

    /// Read the profile again from its file
    #[arg(long, conflicts_with = "profile")]
    pub reload: bool,

    /// Do not end established connections that the new policy denies
    #[arg(long)]
    pub keep_established: bool,
}
