//! What the resolver of a fence found, for other commands: a file under /run/qfence, which its supervisor renews.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        files::{
            PRIVATE_FILE, bounded,
            directory::{Directory, Others},
            staged::Staged,
        },
        version,
    },
    policy::guard::Struck,
};

/// The suffix of the files.
const SUFFIX: &str = ".names";

/// The most bytes that are read. The names that a supervisor keeps have at most a million.
const LONGEST: u64 = 4 * 1024 * 1024;

/// The names of each address.
pub type NamesOfAddresses = BTreeMap<IpAddr, Vec<String>>;

/// The results of look-ups, as they are counted.
pub const RESULTS: [&str; 7] = [
    "allowed",
    "denied",
    "would-deny",
    "struck",
    "failed",
    "full",
    "error",
];

/// The look-ups that were refused, or would be refused outside of monitor mode.
#[must_use]
pub fn refused(lookups: &[u64; RESULTS.len()]) -> u64 {
    let refused = RESULTS
        .iter()
        .zip(lookups)
        .filter(|(result, _)| matches!(**result, "denied" | "would-deny"));
    refused.map(|(_, count)| count).sum()
}

/// What the resolver found, and where it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct StoredNames {
    /// The names behind addresses.
    pub names: NamesOfAddresses,
    /// The number of look-ups, by their results in the order of [`RESULTS`].
    pub lookups: [u64; RESULTS.len()],
    /// The number of look-ups by the number of the rule that decided.
    #[serde(default)]
    pub rules: BTreeMap<u32, u64>,
    /// The addresses that were taken out of the latest answers, by name.
    #[serde(default)]
    pub struck: BTreeMap<String, Vec<Struck>>,
    /// Whether names may lead to private networks.
    #[serde(default)]
    pub allows_private: bool,
    /// The number of the policy by which the addresses of names are in force.
    #[serde(default)]
    pub generation: u64,
    /// Where the resolver receives queries: connections of the fence to these addresses are queries that were led there.
    #[serde(default)]
    pub resolver: Vec<SocketAddr>,
}

/// The file of one fence.
#[derive(Clone, Debug)]
pub struct NamesFile {
    run: PathBuf,
    file: String,
}

/// The content of the file.
#[derive(Deserialize, Serialize)]
struct Content {
    abi: u32,
    found: StoredNames,
}

impl NamesFile {
    /// The file of the fence `name`. `run` is the directory of descriptions.
    #[must_use]
    pub fn new(run: &Path, name: &str) -> Self {
        Self {
            run: run.to_owned(),
            file: format!("{name}{SUFFIX}"),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.run.join(&self.file)
    }

    /// Replaces the content. Returns the number of bytes.
    ///
    /// # Errors
    /// If it cannot be written. The file is unchanged then.
    pub fn write(&self, found: StoredNames) -> Result<usize> {
        let abi = version::abi();
        let text = serde_json::to_vec(&Content { abi, found })?;
        let directory = Directory::private(&self.run, Others::Read)?;
        Staged::write(directory, self.file.as_ref(), &text, PRIVATE_FILE)?.keep()?;
        Ok(text.len())
    }

    /// The content; nothing if there is no file.
    ///
    /// # Errors
    /// If it cannot be read, or another version wrote it.
    pub fn read(&self) -> Result<StoredNames> {
        let path = self.run.join(&self.file);
        let wrong = || format!("cannot read {}", path.display());
        let text = match bounded::read(&path, LONGEST) {
            Err(error) if error.is_missing() => return Ok(StoredNames::default()),
            read => read.with_context(wrong)?,
        };
        let content: Content = serde_json::from_slice(&text).with_context(wrong)?;
        version::check(content.abi, "it").with_context(wrong)?;
        Ok(content.found)
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// Errors of unlink.
    pub fn remove(&self) -> Result<()> {
        super::remove(&self.run, &self.file)
    }
}
