//! Profiles: policies in TOML files of the administrator, and shipped ones.
//!
//! ```toml
//! description = "the test database, and the internet"   # optional
//! default = "allow"                                     # or "deny": if no rule matches
//!
//! [[rule]]                                              # the first rule that matches decides
//! allow = "tcp:192.0.2.1:5432"
//! comment = "the test database"                         # optional; shown in logs
//!
//! [[rule]]
//! deny = ["host", "lan", "metadata"]
//! ```
//!
//! | module | its one job |
//! |---|---|
//! | [`find`] | finds a profile by name or path |
//! | `file` | reads a file that other users cannot change |
//! | [`host_file`] | further addresses of the host, in a file of their own |
//! | `toml` | parses the text |
//! | [`position`] | an error with file, line, column and excerpt |
//! | [`shipped`] | the profiles that come with qfence |

mod file;
pub mod find;
pub mod host_file;
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

/// A policy from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name: that of the file.
    pub name: String,
    /// Its file; `None` if it is shipped.
    pub path: Option<PathBuf>,
    /// Its purpose, in one line.
    pub description: Option<String>,
    /// The action if no rule matches.
    pub default: Action,
    /// The line of the default.
    pub default_line: usize,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

impl Profile {
    /// Parses a profile. `path` is for the sources of its rules, and for errors.
    ///
    /// # Errors
    /// If any part of it is invalid. Nothing is skipped.
    pub fn parse(name: &str, path: Option<&Path>, text: &str) -> Result<Self, ProfileError> {
        toml::parse(name, path, text).map_err(|fault| {
            let file = path.map_or_else(
                || format!("{name} (shipped)"),
                |path| path.display().to_string(),
            );
            ProfileError::Text(Box::new(Misplaced::new(file, text, fault)))
        })
    }

    /// The shipped profile of a name, even if the administrator has one of that name.
    ///
    /// # Errors
    /// If there is none, or it is invalid.
    pub fn shipped(name: &str) -> Result<Self, ProfileError> {
        match SHIPPED.iter().find(|shipped| shipped.name == name) {
            Some(shipped) => Self::parse(shipped.name, None, shipped.text),
            None => Err(ProfileError::Name { name: name.into() }),
        }
    }

    /// The default as a rule that matches everything, after all others.
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
    /// The text is neither a name nor a path.
    #[error(
        "{name:?} is no name of a profile: write one of lower-case letters, digits, - and _, or a \
         path with a / in it or .toml at its end"
    )]
    Name {
        /// The text.
        name: String,
    },
    /// No profile has that name.
    #[error("there is no profile {name:?} in {}: write {}, or a path", directory.display(), names.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The directory that was searched.
        directory: PathBuf,
        /// The existing names.
        names: Vec<String>,
    },
    /// The file cannot be read, or the directory cannot be listed.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("{} is {kind}: a profile must be a file", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
        /// The type of the file.
        kind: &'static str,
    },
    /// It is too large.
    #[error(
        "{} is larger than {} MiB, which no profile needs: shorten it, or give another file",
        path.display(), MAX_BYTES >> 20
    )]
    TooLarge {
        /// Its path.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error(
        "{} belongs to user {owner}, who could change the policy: chown it to root, or to the \
         user who calls qfence",
        path.display()
    )]
    Owner {
        /// Its path.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Others can write to it.
    #[error(
        "{} can be written to by {whom}, who could change the policy: chmod go-w {}",
        path.display(), path.display()
    )]
    Writable {
        /// Its path.
        path: PathBuf,
        /// The users who can write to it.
        whom: &'static str,
    },
    /// It is not UTF-8.
    #[error("{}:{line} is not UTF-8: save the file in that encoding", path.display())]
    NotText {
        /// Its path.
        path: PathBuf,
        /// The line of the first invalid byte.
        line: usize,
    },
    /// Its text is invalid.
    #[error(transparent)]
    Text(Box<Misplaced>),
}

#[cfg(test)]
mod tests;
