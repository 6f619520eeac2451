//! Probes by every method there is: `qfence-verify probe`, and its typed results.

use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use crate::{
    fence::verifier,
    namespace::{Namespace, User},
    probe,
};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The connection stands, or an answer came.
    Reached,
    /// The kernel accepted all that was sent, and no answer came in time.
    Sent,
    /// The connection did not come about in time.
    Timeout,
    /// A step failed.
    Failed,
    /// The kernel has no such way.
    Unsupported,
    /// The user may not, in a fence or out of it.
    Unprivileged,
}

/// One line of `qfence-verify probe`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The attempt, as it was given.
    pub attempt: String,
    /// How it ended.
    pub ending: Ending,
    /// The step that failed, for example `connect`.
    pub step: Option<String>,
    /// The error's name, for example `ECONNREFUSED`.
    pub errno: Option<String>,
    /// What the peer said.
    pub reply: Option<String>,
    /// Milliseconds.
    pub ms: f64,
}

impl Outcome {
    /// Whether this step failed with this error.
    #[must_use]
    pub fn failed_with(&self, step: &str, errno: &str) -> bool {
        self.ending == Ending::Failed
            && self.step.as_deref() == Some(step)
            && self.errno.as_deref() == Some(errno)
    }
}

/// The command that makes probes from a namespace, as root or as somebody else; what is to be
/// tried is still to be added.
pub fn command(namespace: &Namespace, user: Option<User>) -> Result<Command> {
    let mut command = match user {
        Some(user) => namespace.command_as(user, verifier()?),
        None => namespace.command(verifier()?),
    };
    command.arg("probe");
    Ok(command)
}

/// Runs such a command, and reads what it says.
pub fn run(command: &mut Command) -> Result<Vec<Outcome>> {
    let output = probe::output(command)?;
    probe::read_lines(&output)
}
