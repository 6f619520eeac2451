//! Counts that wait for the next summary while a flood lasts.

use std::{cmp::Reverse, collections::HashMap};

use qfence_common::{AttemptKey, Repeats};

/// The most keys whose counts are held.
const KEYS: usize = 4096;

/// Counts of repeats by key.
#[derive(Default)]
pub(super) struct Held {
    counts: HashMap<AttemptKey, Repeats>,
    attempts: u64,
    lost: u64,
}

impl Held {
    /// Adds repeats of a key. Returns false if there is no room for the key.
    pub(super) fn add(&mut self, key: &AttemptKey, repeats: &Repeats) -> bool {
        let is_full = self.counts.len() >= KEYS;
        if let Some(held) = self.counts.get_mut(key) {
            held.count += repeats.count;
            held.last_ns = repeats.last_ns;
        } else if is_full {
            return false;
        } else {
            self.counts.insert(*key, *repeats);
        }
        self.attempts += repeats.count;
        true
    }

    /// Adds attempts that are lost.
    pub(super) fn add_lost(&mut self, attempts: u64) {
        self.lost += attempts;
    }

    /// The number of attempts that are held.
    pub(super) fn attempts(&self) -> u64 {
        self.attempts + self.lost
    }

    /// Takes all counts, the largest first, and the number of lost attempts.
    pub(super) fn take(&mut self) -> (Vec<(AttemptKey, Repeats)>, u64) {
        let Self { counts, lost, .. } = std::mem::take(self);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(key, repeats)| (Reverse(repeats.count), *key));
        (counts, lost)
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::{Hook, verdict};

    use super::*;
    use crate::record::line::tests::seen;

    #[test]
    fn counts_of_a_key_add_up_and_those_of_too_many_keys_are_not_held() {
        let (key, origin) = seen(Hook::Connect4, [1; 16], 6, 22, verdict::MANAGER);
        let repeats = |count, last_ns| Repeats {
            count,
            last_ns,
            origin,
        };
        let numbered = |pid| AttemptKey { pid, ..key };
        let mut held = Held::default();
        assert!(held.add(&numbered(1), &repeats(2, 10)));
        assert!(held.add(&numbered(2), &repeats(4, 20)));
        assert!(held.add(&numbered(1), &repeats(3, 30)));
        held.add_lost(7);
        assert_eq!(held.attempts(), 16);
        let (counts, lost) = held.take();
        assert_eq!(
            counts,
            [(numbered(1), repeats(5, 30)), (numbered(2), repeats(4, 20))]
        );
        assert_eq!((lost, held.attempts()), (7, 0));

        for pid in 0..u32::try_from(KEYS).unwrap() {
            assert!(held.add(&numbered(pid), &repeats(1, 1)));
        }
        assert!(!held.add(&numbered(u32::MAX), &repeats(1, 1)));
        assert!(held.add(&numbered(0), &repeats(1, 1)));
        assert_eq!(held.attempts(), KEYS as u64 + 1);
    }
}
