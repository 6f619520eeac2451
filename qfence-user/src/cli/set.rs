//! The command line of `set`.

use std::time::Duration;

use clap::{ArgGroup, Args};
use jiff::SignedDuration;

use super::PolicyArgs;
use crate::policy::Dns;

/// The options of `set` of which at least one is required.
const CHANGES: [&str; 8] = [
    "allow", "deny", "default", "profile", "dns", "monitor", "enforce", "reload",
];

const NOTES: &str = "\
Examples:
  sudo qfence-user set vm1 --allow tcp:127.0.0.1:5432
  sudo qfence-user set vm1 --allow lan --for 10m
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

    /// Take the rules of --allow and --deny back after this time, such as 90s, 10m, 2h
    ///
    /// Time in suspend counts. Another process of qfence takes the rules back, also without a supervisor, and
    /// ends the connections that are denied then.
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = duration,
        conflicts_with_all = ["default", "profile", "dns", "monitor", "enforce", "reload"]
    )]
    pub duration: Option<Duration>,

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

/// The longest duration, in seconds: a year.
const LONGEST: u64 = 366 * 24 * 60 * 60;

/// Parses a duration.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a duration from 1s to a year, such as 90s, 10m, 2h".to_owned();
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(duration).map_err(|_| wrong())?;
    match duration.as_secs() {
        1..=LONGEST => Ok(duration),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_neither_too_short_nor_too_long() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "10", "0s", "-5m", "999ms", "9000h", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
