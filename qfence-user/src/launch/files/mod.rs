//! The closure `files`: the command reads public files, and reads and changes those that it was granted.
//!
//! Two mechanisms together close it. A Landlock domain judges whatever is opened, made, renamed or removed ([`rules`]).
//! It judges no change of attributes: chmod(2), chown(2), utimes(2), setxattr(2). So all mounts are read-only in the
//! command's mount namespace, except at what it may change ([`mounts`]). A domain that restricts files also forbids
//! mounting, so the command cannot undo that.
//!
//! | module | its one job |
//! |---|---|
//! | [`public`] | the files that every command keeps |
//! | [`rules`] | opens the granted paths, and makes the rules of the Landlock domain |
//! | [`mounts`] | makes the mounts read-only |
//! | [`witness`] | a file by which the command's process checks that the domain works |
//! | [`output`] | makes a file that the command will write |
//! | [`scratch`] | the command's directory for temporary files |
mod mounts;
mod output;
mod public;
mod rules;
pub mod scratch;
mod witness;

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result};

pub use self::output::make_output;
pub(in crate::launch) use self::{
    rules::{RIGHTS, Rule},
    witness::Witness,
};
use crate::confinement::Grants;

/// The files of a command, opened and checked.
#[derive(Debug)]
pub struct Files {
    rules: Vec<Rule>,
    witness: Witness,
    /// The command's own /dev/shm, not mounted yet; `None` if the host's was granted.
    shared_memory: Option<OwnedFd>,
}

impl Files {
    /// Opens what is granted, what every command keeps, and `own`, the command's directory for temporary files.
    ///
    /// # Errors
    /// If a granted path cannot be opened, or the grants leave nothing closed.
    pub fn open(grants: &Grants, own: &Path) -> Result<Self> {
        let shm = Path::new(mounts::SHARED_MEMORY);
        let mut rules = rules::of(grants)?;
        // A file of the host's is granted there: a directory of the command's own would hide it.
        let is_granted = rules.iter().any(|rule| rule.needs(shm));
        rules.extend(public::rules()?);
        rules.push(rules::of_own(own).with_context(|| format!("cannot open {}", own.display()))?);
        let shared_memory = if is_granted || !shm.is_dir() {
            None
        } else {
            let made =
                mounts::temporary("1777").context("cannot make a /dev/shm for the command")?;
            rules.push(Rule::changing(shm.to_owned(), rules::reopen(&made)?));
            Some(made)
        };
        Ok(Self {
            rules,
            witness: Witness::new()?,
            shared_memory,
        })
    }

    /// The rules of the Landlock domain.
    pub(in crate::launch) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The file by which the command's process checks the domain.
    pub(in crate::launch) fn witness(&self) -> &Witness {
        &self.witness
    }
}
