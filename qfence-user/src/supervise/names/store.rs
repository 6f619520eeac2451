//! Stores the names behind addresses for other commands.

use std::sync::atomic::Ordering;

use anyhow::Result;

use super::ends::Shared;
use crate::stored_policy::resolved_names::{NamesFile, RESULTS, StoredNames};

/// How many bytes are written per second, on average. A file of usual size is written at most once a second.
const BYTES_A_SECOND: usize = 64 * 1024;

/// The file, and what it has.
pub(super) struct Store {
    file: NamesFile,
    /// The number of changes and the counts by which the file is so; `None` before it is written.
    written: Option<(u64, [u64; RESULTS.len()])>,
    /// For how many more seconds it is not written.
    rests: usize,
}

impl Store {
    pub(super) const fn new(file: NamesFile) -> Self {
        Self {
            file,
            written: None,
            rests: 0,
        }
    }

    /// To be called once per second: writes the file, if it would be another one and was not written too much lately.
    pub(super) fn keep_up(&mut self, shared: &Shared) -> Result<()> {
        self.rests = self.rests.saturating_sub(1);
        let counts = shared.counts.each_ref();
        let lookups = counts.map(|count| count.load(Ordering::Relaxed));
        if self.rests > 0 || self.written == Some((shared.names.changes(), lookups)) {
            return Ok(());
        }
        let (names, changes) = shared.names.all();
        let text = |names: Vec<_>| names.iter().map(ToString::to_string).collect();
        let names = names.into_iter();
        let length = self.file.write(StoredNames {
            names: names.map(|(address, of)| (address, text(of))).collect(),
            lookups,
        })?;
        self.rests = length.div_ceil(BYTES_A_SECOND);
        self.written = Some((changes, lookups));
        Ok(())
    }
}
