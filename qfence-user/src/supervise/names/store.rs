//! Stores the names behind addresses for other commands.

use anyhow::Result;

use super::tally::Tally;
use crate::{
    record::resolved_names::ResolvedNames,
    stored_policy::resolved_names::{NamesFile, StoredNames},
};

/// How many bytes are written per second, on average. A file of usual size is written at most once a second.
const BYTES_A_SECOND: usize = 64 * 1024;

/// The file, and what it has.
pub(super) struct Store {
    file: NamesFile,
    /// What the file has in any case: where the resolver listens, and its options.
    always: StoredNames,
    /// The number of changes and of look-ups by which the file is so; `None` before it is written.
    written: Option<(u64, u64)>,
    /// The number of the policy in the file, by which the addresses of names are in force.
    generation: Option<u64>,
    /// For how many more seconds it is not written.
    rests: usize,
}

impl Store {
    pub(super) const fn new(file: NamesFile, always: StoredNames) -> Self {
        Self {
            file,
            always,
            written: None,
            generation: None,
            rests: 0,
        }
    }

    /// To be called once per second: writes the file, if it would be another one and was not written too much lately. `set`
    /// waits for the number of its policy, so that is always written. `tally` has the counts of look-ups, and `generation`
    /// is the number of the policy by which the addresses of names are in force, if they all are.
    ///
    /// # Errors
    /// If it cannot be written. Then it is tried again at the next call.
    pub(super) fn keep_up(
        &mut self,
        names: &ResolvedNames,
        tally: &Tally,
        generation: Option<u64>,
    ) -> Result<()> {
        self.rests = self.rests.saturating_sub(1);
        let generation = generation.or(self.generation).unwrap_or_default();
        let is_old = self.generation == Some(generation);
        let lookups = tally.total();
        let is_same = self.written == Some((names.changes(), lookups));
        if is_old && (self.rests > 0 || is_same) {
            return Ok(());
        }
        let (names, changes) = names.all();
        let text = |names: Vec<_>| names.iter().map(ToString::to_string).collect();
        let names = names.into_iter();
        let mut stored = StoredNames {
            names: names.map(|(address, of)| (address, text(of))).collect(),
            generation,
            ..self.always.clone()
        };
        tally.store(&mut stored);
        let length = self.file.write(stored)?;
        self.generation = Some(generation);
        self.rests = length.div_ceil(BYTES_A_SECOND);
        self.written = Some((changes, lookups));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::IpAddr};

    use super::*;
    use crate::record::lookups::LookedUp;

    const NAME: &str = "www.example.org";

    fn lookup() -> LookedUp {
        LookedUp {
            verdict: "allowed",
            name: NAME.into(),
            kind: "A".into(),
            rule: Some(1),
            addresses: Vec::new(),
            struck: Vec::new(),
            error: None,
        }
    }

    fn add(names: &ResolvedNames, numbers: std::ops::Range<u32>) {
        for number in numbers {
            names.add(&[IpAddr::from(number.to_be_bytes())], NAME);
        }
    }

    #[test]
    fn the_file_is_written_when_it_changes_and_a_long_one_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let file = NamesFile::new(dir.path(), "x");
        let mut store = Store::new(file.clone(), StoredNames::default());
        let tally = Tally::default();
        let names = ResolvedNames::default();
        let path = dir.path().join("x.names");
        let mut keep_up = |lookups: u64, generation| {
            let _ = fs::remove_file(&path);
            while tally.total() < lookups {
                tally.take(&lookup());
            }
            store.keep_up(&names, &tally, generation).unwrap();
            path.exists()
        };
        assert!(keep_up(0, None), "it is the first");
        assert!(keep_up(0, Some(7)), "another policy");
        assert_eq!(file.read().unwrap().generation, 7);
        assert!(!keep_up(0, None), "a policy that is not in force yet");
        let mut is_written = |lookups| keep_up(lookups, Some(7));
        assert!(!is_written(0), "nothing has changed");
        assert!(is_written(1), "a count");
        add(&names, 0..1);
        assert!(is_written(1), "a name");
        assert_eq!(file.read().unwrap().lookups[0], 1);
        assert_eq!(file.read().unwrap().names.len(), 1);
        add(&names, 0..8000);
        assert!(is_written(1));
        let length = fs::metadata(&path).unwrap().len();
        let rests = usize::try_from(length).unwrap() / BYTES_A_SECOND;
        assert!(rests > 2);
        add(&names, 8000..8001);
        for _ in 0..rests {
            assert!(!is_written(2));
        }
        assert!(is_written(2));
        assert_eq!(file.read().unwrap().names.len(), 8001);
        assert!(!is_written(3), "it rests again");
        assert!(keep_up(3, Some(8)), "another policy");
    }
}
