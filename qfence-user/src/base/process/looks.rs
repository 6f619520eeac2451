//! Describes processes without blocking. A helper process reads /proc; if it does not answer in time, a process is
//! described by its number alone.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{
    ProcessEnd,
    helper::{Apart, Question},
};

/// The most threads that are described.
const DESCRIBED: usize = 5;

/// Describes processes.
#[derive(Debug)]
pub struct Looks(Apart);

impl Default for Looks {
    fn default() -> Self {
        Self(Apart::new(Path::new("/proc")))
    }
}

impl Looks {
    /// Reads in this process.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self(Apart::here(Path::new("/proc")))
    }

    /// How a process ends that still exists; `None` if it is not ending.
    ///
    /// # Errors
    /// If that cannot be read at the moment.
    pub fn ending(&mut self, pid: i32) -> Result<Option<ProcessEnd>> {
        let answer = self.0.ask(Question::Ending(pid))?;
        ProcessEnd::decode(&String::from_utf8_lossy(&answer))
            .context("the helper process gave an invalid answer")
    }

    /// Whether it can never be read again, because too many helpers are blocked in the kernel.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.0.has_given_up()
    }

    /// A process in words: number, name and state.
    #[must_use]
    pub fn name(&mut self, pid: i32) -> String {
        self.words(Question::Name(pid), pid)
    }

    /// The threads that keep a process from ending, or its tracer, in words.
    #[must_use]
    pub fn describe_keepers(&mut self, pid: i32) -> String {
        self.words(Question::Keepers(pid), pid)
    }

    /// Threads in words: the first few, and the number of the others. Empty if none exists.
    #[must_use]
    pub fn describe_all(&mut self, threads: &[i32]) -> String {
        let mut words = Vec::new();
        for tid in threads {
            if words.len() >= DESCRIBED {
                break;
            }
            let described = self.words(Question::Describe(*tid), *tid);
            if !described.is_empty() {
                words.push(described);
            }
        }
        super::joined(words, threads.len())
    }

    /// The answer, or the number with the reason.
    fn words(&mut self, question: Question, id: i32) -> String {
        match self.0.ask(question) {
            Ok(words) => String::from_utf8_lossy(&words).into_owned(),
            Err(error) => {
                format!("process {id}, whose state cannot be read ({error:#})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_described_and_one_that_is_not_there_is_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut looks = Looks::here();
        let described = looks.describe_all(&[own]);
        assert!(
            described.starts_with(&format!("process {own} (")),
            "{described}"
        );
        assert_eq!(looks.describe_all(&[-7]), "");
        assert!(looks.describe_all(&[own; 9]).ends_with("4 more threads"));
        assert_eq!(looks.ending(own).unwrap(), None);
        assert!(!looks.has_given_up());
    }

    /// In a test the helper is the test program, which does not have the verb.
    #[test]
    fn a_process_of_which_there_is_no_telling_is_named_by_its_number() {
        let mut looks = Looks::default();
        let named = looks.name(7);
        assert!(
            named.starts_with("process 7, whose state cannot be read"),
            "{named}"
        );
        assert!(looks.ending(7).is_err());
    }
}
