//! Makes all attempts in one kind of fence. The fence is that of `qfence-user exec`, which this program runs as a user
//! would.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{
    USER, attempts,
    judge::Outcome,
    stage::{Stage, unprivileged},
    table::ATTEMPTS,
    victims::{PORTS, PROGRAM, SCRATCH, SECRET},
};
use crate::{
    base::{exit::FAILED, identity::Callers, paths::Paths},
    verify::{netns::on_thread, program},
};

/// A kind of fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// None: the control.
    Without,
    /// The fence of `exec` without options.
    Default,
    /// The fence of `exec --strict`.
    Strict,
}

/// The attempts in one kind of fence.
#[derive(Clone, Debug, PartialEq)]
pub enum Tries {
    /// The outcomes, in the order of the table.
    Made(Vec<Outcome>),
    /// `exec` has started nothing, for this reason.
    NotStarted(String),
}

impl Tries {
    /// The outcomes.
    ///
    /// # Errors
    /// If nothing was started.
    pub fn expected(self) -> Result<Vec<Outcome>> {
        match self {
            Self::Made(outcomes) => Ok(outcomes),
            Self::NotStarted(error) => Err(anyhow!("cannot start the attempts: {error}")),
        }
    }
}

/// Makes all attempts, against victims of their own.
///
/// # Errors
/// If the victims cannot be made, or the attempts have no outcomes.
pub fn run(column: Column, paths: &Paths) -> Result<Tries> {
    // The namespaces of the stage end with the thread.
    on_thread(|| {
        let stage = Stage::enter(paths)?;
        let mut command = command(column)?;
        command.args(["attempts", &serde_json::to_string(&stage.victims)?]);
        command.env(SECRET, "secret").stdin(stage.terminal()?);
        let output = command.output().context("cannot start the attempts")?;
        read(&output).with_context(|| format!("the attempts of {column:?}"))
    })
}

fn command(column: Column) -> Result<Command> {
    if column == Column::Without {
        return Ok(unprivileged(PROGRAM));
    }
    let mut command = Command::new(program::launcher()?);
    // The variables of sudo and its like name another user.
    for variable in Callers::VARIABLES {
        command.env_remove(variable);
    }
    let user = format!("{USER}:{USER}");
    command.args(["exec", "--log", "none", "--user", &user]);
    if column == Column::Strict {
        command.args(["--strict", "--allow-read", PROGRAM]);
        command.args(["--allow-write", SCRATCH]);
        command.args(["--allow-listen", &PORTS.1.to_string()]);
    }
    command.args(["--", PROGRAM]);
    Ok(command)
}

/// Reads the outcomes out of what a column has printed.
fn read(output: &Output) -> Result<Tries> {
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(FAILED.into()) {
        let error = errors
            .lines()
            .rev()
            .find_map(|line| line.split_once("error: "));
        let error = error.map_or_else(|| errors.trim(), |(_, error)| error);
        return Ok(Tries::NotStarted(error.to_owned()));
    }
    if !output.status.success() {
        bail!("they ended with {}: {}", output.status, errors.trim());
    }
    let outcomes = attempts::parse(&String::from_utf8_lossy(&output.stdout))?;
    ensure!(
        outcomes.len() == ATTEMPTS.len(),
        "{} outcomes of {} attempts",
        outcomes.len(),
        ATTEMPTS.len()
    );
    Ok(Tries::Made(outcomes))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use super::*;

    fn output(status: i32, stdout: &str, stderr: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(status << 8),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn a_refused_start_is_told_from_a_failure() {
        let refused = output(125, "", "qfence: a note\nqfence: error: no such thing\n");
        let expected = Tries::NotStarted("no such thing".into());
        assert_eq!(read(&refused).unwrap(), expected);
        assert!(read(&output(1, "", "")).is_err());
        assert!(read(&output(0, "[0]\n", "")).is_err());
        let all = format!("{:?}\n", vec![0; ATTEMPTS.len()]);
        let made = Tries::Made(vec![Outcome::Done; ATTEMPTS.len()]);
        assert_eq!(read(&output(0, &all, "")).unwrap(), made);
    }
}
