//! Profiles: policies in TOML files, those of the administrator and those that come with qfence.
//!
//! ```toml
//! description = "the test database, and the internet"   # may be left out
//! default = "allow"                                     # or "deny": what no rule matches
//!
//! [[rule]]                                              # of these the first that matches decides
//! allow = "tcp:192.0.2.1:5432"
//! comment = "the test database"                         # may be left out; shown in logs
//!
//! [[rule]]
//! deny = ["host", "lan", "metadata"]
//! ```
//!
//! | module | its one job |
//! |---|---|
//! | [`find`] | a name or a path to a profile |
//! | `file` | reads a file that a tool of root's may believe |
//! | `toml` | the text to rules |
//! | [`position`] | an error with file, line, column, and the text it is about |
//! | [`shipped`] | the profiles that come with qfence |

mod file;
pub mod find;
pub mod position;
pub mod shipped;
mod toml;

use std::{
    io,
    path::{Path, PathBuf},
};

use qfence_common::Action;

use self::shipped::SHIPPED;
pub use self::{find::Profiles, position::Misplaced};
use super::{
    rule::{Destination, Match, Rule, Source},
    set::SetName,
};

/// The most bytes in a file: hundreds of thousands of rules.
pub const MAX_BYTES: u64 = 16 << 20;

/// The most characters in a description or a comment.
pub const MAX_COMMENT: usize = 200;

/// A policy out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name: that of the file.
    pub name: String,
    /// The file; none if it came with qfence.
    pub path: Option<PathBuf>,
    /// What it is for, in a line.
    pub description: Option<String>,
    /// What is done with what no rule matches.
    pub default: Action,
    /// The line that says so.
    pub default_line: usize,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

impl Profile {
    /// Reads a profile's text. `path` is for its rules to say where they come from, and for errors.
    ///
    /// # Errors
    /// If there is anything in it that is not understood. No part of it is left out.
    pub fn parse(name: &str, path: Option<&Path>, text: &str) -> Result<Self, ProfileError> {
        toml::parse(name, path, text).map_err(|fault| {
            let file = path.map_or_else(
                || format!("{name} (shipped)"),
                |path| path.display().to_string(),
            );
            ProfileError::Text(Box::new(Misplaced::new(file, text, fault)))
        })
    }

    /// The profile of a name that came with qfence, whatever the administrator has under that name.
    ///
    /// # Errors
    /// If there is none, or it is not understood.
    pub fn shipped(name: &str) -> Result<Self, ProfileError> {
        match SHIPPED.iter().find(|shipped| shipped.name == name) {
            Some(shipped) => Self::parse(shipped.name, None, shipped.text),
            None => Err(ProfileError::Name { name: name.into() }),
        }
    }

    /// The default as the rule that it amounts to, behind all others.
    #[must_use]
    pub fn default_rule(&self) -> Rule {
        Rule {
            action: self.default,
            matches: vec![Match::all_of(Destination::Set(SetName::Any))],
            comment: None,
            source: Source::Default {
                name: self.name.clone(),
                path: self.path.clone(),
                line: self.default_line,
            },
        }
    }
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// What is asked for is neither name nor path.
    #[error(
        "{name:?} is no name of a profile: write one of lower-case letters, digits, - and _, or a \
         path with a / in it or .toml at its end"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// No profile has that name.
    #[error("there is no profile {name:?} in {}: write {}, or a path", directory.display(), names.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where one would be.
        directory: PathBuf,
        /// The names that there are.
        names: Vec<String>,
    },
    /// The file cannot be read, or the directory be listed.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no file.
    #[error("{} is {kind}: a profile must be a file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is too large.
    #[error(
        "{} is larger than {} MiB, which no profile needs: shorten it, or give another file",
        path.display(), MAX_BYTES >> 20
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else could change it.
    #[error(
        "{} belongs to user {owner}, who could change what it allows: chown it to root, or to who \
         calls qfence",
        path.display()
    )]
    Owner {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others can write to it.
    #[error(
        "{} can be written to by {whom}, who could change what it allows: chmod go-w {}",
        path.display(), path.display()
    )]
    Writable {
        /// Which file.
        path: PathBuf,
        /// By whom.
        whom: &'static str,
    },
    /// It is no text.
    #[error("{}:{line} is not UTF-8: save the file in that encoding", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
        /// The line where it ends to be.
        line: usize,
    },
    /// Its text is not understood.
    #[error(transparent)]
    Text(Box<Misplaced>),
}

#[cfg(test)]
mod tests;
