//! The attempt keys that were seen recently, with the origin and the process of each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use qfence_common::{AttemptKey, Origin, Repeats, abi, unix::Name};

use crate::{base::clock::since_boot, record::process::Process};

/// A key is forgotten after this time without attempts. Its next attempt is an event again.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The known keys among those that the kernel counts.
#[derive(Default)]
pub(super) struct Keys(HashMap<AttemptKey, Seen>);

/// What is known of a key.
pub(super) struct Seen {
    origin: Origin,
    last_ns: u64,
    /// The name of a Unix socket. `None` too if the event that had it was lost.
    pub(super) name: Option<Name>,
    pub(super) process: Option<Process>,
    /// The workload of the first attempt. `None` too if it was not looked up.
    pub(super) workload: Option<Arc<str>>,
}

impl Keys {
    /// Remembers the first attempt of a key; returns what is known of the key, which is nothing yet.
    pub(super) fn seen_first(&mut self, key: AttemptKey, origin: Origin) -> &mut Seen {
        let seen = Seen::new(origin, origin.boot_ns);
        self.0.entry(key).insert_entry(seen).into_mut()
    }

    /// Notes the time of the last repeat of a key; returns what is known of the key.
    pub(super) fn seen_again(&mut self, key: &AttemptKey, repeats: &Repeats) -> &mut Seen {
        let new = || Seen::new(repeats.origin, 0);
        let seen = self.0.entry(*key).or_insert_with(new);
        seen.last_ns = repeats.last_ns;
        seen
    }

    /// All keys, each with a count of 0.
    pub(super) fn known(&self) -> Vec<(AttemptKey, Repeats)> {
        self.0
            .iter()
            .map(|(key, seen)| (*key, seen.known()))
            .collect()
    }

    /// Whether there is a key to forget.
    pub(super) fn has_old(&self) -> bool {
        let now = since_boot().unwrap_or(0);
        self.0.values().any(|seen| seen.is_old(now))
    }

    /// Forgets keys without attempts for [`FORGOTTEN`]. If more than half of the kernel's keys remain, forgets those
    /// without attempts in the last two seconds, and if that is not enough, all.
    pub(super) fn forget(&mut self) {
        let now = since_boot().unwrap_or(0);
        self.0.retain(|_, seen| !seen.is_old(now));
        if self.0.len() > abi::KEYS as usize / 2 {
            let recently = Duration::from_secs(2).as_nanos();
            self.0
                .retain(|_, seen| u128::from(now.saturating_sub(seen.last_ns)) < recently);
        }
        if self.0.len() > abi::KEYS as usize / 2 {
            self.0.clear();
        }
    }
}

impl Seen {
    fn new(origin: Origin, last_ns: u64) -> Self {
        Self {
            origin,
            last_ns,
            name: None,
            process: None,
            workload: None,
        }
    }

    fn known(&self) -> Repeats {
        Repeats {
            count: 0,
            last_ns: self.last_ns,
            origin: self.origin,
        }
    }

    fn is_old(&self, now: u64) -> bool {
        u128::from(now.saturating_sub(self.last_ns)) > FORGOTTEN.as_nanos()
    }
}
