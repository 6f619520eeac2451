//! The command line of `qfence-verify`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{OpenDevice, Probes, SystemCall, Verify};

/// Show that a fence holds on this kernel: the program that `qfence-user verify` executes.
#[derive(Debug, Parser)]
#[command(
    name = "qfence-verify",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Verifier {
    /// The build of the program that executes this one; another build than this one's is an error
    #[arg(long, hide = true, value_name = "BUILD")]
    pub build: Option<String>,

    /// The options of `qfence-user verify`
    #[command(flatten)]
    pub verify: Verify,

    /// What a process of it is to do
    #[command(subcommand)]
    pub actor: Option<Actor>,
}

/// The processes of `qfence-verify`, outside and inside of the fence. Tests use them as well.
#[derive(Debug, Subcommand)]
pub enum Actor {
    /// Try to reach destinations by any of many methods, and say what came of each
    Probe(Probes),
    /// Open a device, and say what came of it
    #[command(hide = true)]
    Open(OpenDevice),
    /// Make a system call, and say what came of it
    #[command(hide = true, subcommand)]
    Call(SystemCall),
    /// Make sockets, files and memory for attempts, until standard input ends
    #[command(hide = true)]
    Victim,
    /// Try every way out that is no packet, and say what came of it
    #[command(hide = true)]
    Attempts {
        /// The victims, as JSON
        victims: String,
    },
    /// Answer whoever comes
    #[command(hide = true)]
    Service,
    /// Read the state of processes for another process of qfence, which may leave this one behind
    #[command(hide = true)]
    StatReader {
        /// Where /proc is mounted
        proc: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::base::process::helper::VERB;

    #[test]
    fn the_definition_is_sound() {
        Verifier::command().debug_assert();
    }

    #[test]
    fn it_takes_the_options_of_the_verb_and_is_a_helper_of_its_own() {
        let parse = |words: &[&str]| Verifier::try_parse_from([&["qfence-verify"], words].concat());
        let verifier = parse(&["--build", "x", "--short", "--json"]).unwrap();
        assert!(verifier.verify.short && verifier.verify.json && verifier.actor.is_none());
        assert_eq!(verifier.build.as_deref(), Some("x"));
        // The removal of a fence starts its own executable with this verb.
        let helper = parse(&[VERB, "/proc"]).unwrap();
        assert!(matches!(helper.actor, Some(Actor::StatReader { .. })));
        assert!(parse(&["--short", "service"]).is_err());
    }
}
