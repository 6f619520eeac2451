//! Makes the attempts: each is a function that returns an error, if the kernel has refused it.
//!
//! | file | attempts on |
//! |---|---|
//! | [`processes`] | other processes of the user |
//! | [`sockets`] | Unix sockets made outside, and other families of sockets |
//! | [`files`] | the files of the user, and devices |
//! | [`kernel`] | system calls that few programs need |
//! | [`rights`] | memory, keys, variables and limits that the command inherits, and ports |
//! | [`terminal`] | the terminal |
//! | [`own`] | what a process makes itself, which must work |
//! | [`raw`] | system calls without a library |

pub(super) mod files;
pub(super) mod kernel;
pub(super) mod own;
pub(super) mod processes;
pub(super) mod raw;
pub(super) mod rights;
pub(super) mod sockets;
pub(super) mod terminal;

use std::{
    io::{self, Write as _},
    process,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, alarm},
};

use super::{judge::Outcome, table::ATTEMPTS, victims::Victims};

/// The result of an attempt.
pub type Tried = nix::Result<()>;

/// The time after which an attempt counts as hung, in seconds.
const HANG: u32 = 10;

/// The exit status of an attempt whose error is no number of this size.
const ODD: i32 = 255;

/// Makes all attempts of the table, in its order, and prints the outcomes as a line. This process must have one thread.
///
/// # Errors
/// If an attempt cannot be made.
pub fn make(victims: &Victims) -> Result<()> {
    let mut outcomes = Vec::new();
    for attempt in ATTEMPTS {
        outcomes.push(apart(|| (attempt.make)(victims))?);
    }
    writeln!(
        io::stdout(),
        "{}",
        serde_json::to_string(&lines(&outcomes))?
    )?;
    Ok(())
}

/// The outcomes, as they are printed: a number each, which is negative for a signal.
fn lines(outcomes: &[Outcome]) -> Vec<i32> {
    let number = |outcome: &Outcome| match outcome {
        Outcome::Done => 0,
        Outcome::Failed(errno) => *errno,
        Outcome::Killed(signal) => -signal,
    };
    outcomes.iter().map(number).collect()
}

/// Parses what [`make`] prints.
///
/// # Errors
/// If it cannot be parsed.
pub fn parse(line: &str) -> Result<Vec<Outcome>> {
    let numbers: Vec<i32> = serde_json::from_str(line)?;
    let outcome = |number: i32| match number {
        0 => Outcome::Done,
        errno if errno > 0 => Outcome::Failed(errno),
        signal => Outcome::Killed(-signal),
    };
    Ok(numbers.into_iter().map(outcome).collect())
}

/// Makes an attempt in a process of its own, because it may change the process.
fn apart(attempt: impl FnOnce() -> Tried) -> nix::Result<Outcome> {
    match raw::fork()? {
        ForkResult::Child => {
            alarm::set(HANG);
            let number = match attempt() {
                Ok(()) => 0,
                Err(Errno::UnknownErrno) => ODD,
                Err(errno) => errno as i32,
            };
            process::exit(number)
        }
        ForkResult::Parent { child } => ended(child),
    }
}

fn ended(child: Pid) -> nix::Result<Outcome> {
    loop {
        match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => return Ok(Outcome::Done),
            WaitStatus::Exited(_, errno) => return Ok(Outcome::Failed(errno)),
            WaitStatus::Signaled(_, signal, _) => return Ok(Outcome::Killed(signal as i32)),
            _ => {}
        }
    }
}

/// The number of an error of the standard library.
fn errno_of(error: io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Converts the result of a function of the standard library.
fn tried<T>(result: io::Result<T>) -> Tried {
    result.map(drop).map_err(errno_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_being_printed() {
        let all = [Outcome::Done, Outcome::Failed(13), Outcome::Killed(31)];
        let line = serde_json::to_string(&lines(&all)).unwrap();
        assert_eq!(parse(&line).unwrap(), all);
        assert!(parse("[x]").is_err());
    }
}
