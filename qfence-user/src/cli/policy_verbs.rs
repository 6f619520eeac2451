//! The command line of `policy`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// `qfence-user policy`.
#[derive(Debug, Args)]
pub struct PolicyVerb {
    /// The verb
    #[command(subcommand)]
    pub verb: PolicyVerbs,
}

/// The verbs of `qfence-user policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyVerbs {
    /// Check profiles for errors
    ///
    /// Prints errors with file, line and column, and warns of rules that can never match. The exit status
    /// is 1 if a profile has an error.
    Check {
        /// Profiles, by name or path
        #[arg(required = true, value_name = "NAME|PATH")]
        profiles: Vec<OsString>,
    },
    /// Show a fence's rules in order, the hits of each, and the members of its sets
    ///
    /// With --profile, print the file of a profile instead, such as one that comes with qfence, to copy it.
    Show {
        /// The fence
        #[arg(value_name = "NAME", required_unless_present = "profile")]
        name: Option<String>,
        /// Print this profile
        #[arg(long, value_name = "NAME|PATH", conflicts_with_all = ["name", "json"])]
        profile: Option<OsString>,
        /// Print one JSON object instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Draft a profile that allows the destinations seen in monitor mode, for you to review
    ///
    /// With --allowed, of a fence that was started with `exec --log-allowed`: a profile that allows only the
    /// destinations that it was allowed to reach so far.
    Suggest {
        /// The fence
        #[arg(value_name = "NAME")]
        name: String,
        /// Allow only what was let through, instead of what monitor mode has seen
        #[arg(long)]
        allowed: bool,
    },
}
