//! Counts the look-ups of a fence, and keeps the latest answers of which addresses were struck.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    policy::guard::Struck,
    record::lookups::LookedUp,
    stored_policy::resolved_names::{RESULTS, StoredNames},
};

/// The most rules whose look-ups are counted apart: a policy has no more, and `set` can replace them.
const RULES: usize = 2048;

/// The most answers of which the struck addresses are kept. Beyond it, the oldest gives way.
const ANSWERS: usize = 256;

/// The most struck addresses that are kept of an answer.
const ADDRESSES: usize = 8;

/// What was looked up so far.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    results: [u64; RESULTS.len()],
    rules: BTreeMap<u32, u64>,
    /// By name and type.
    struck: BTreeMap<(Arc<str>, Arc<str>), Answer>,
}

#[derive(Debug)]
struct Answer {
    /// The number of look-ups before it.
    at: u64,
    struck: Vec<Struck>,
}

impl Tally {
    /// Takes a look-up with one of the results of [`RESULTS`].
    pub(super) fn take(&self, lookup: &LookedUp) {
        let mut counted = self.lock();
        let counted = &mut *counted;
        if let Some(at) = RESULTS.iter().position(|of| *of == lookup.verdict) {
            counted.results[at] += 1;
        }
        if let Some(rule) = lookup.rule
            && (counted.rules.len() < RULES || counted.rules.contains_key(&rule))
        {
            *counted.rules.entry(rule).or_default() += 1;
        }
        let key = (lookup.name.clone(), lookup.kind.clone());
        if lookup.struck.is_empty() {
            counted.struck.remove(&key);
            return;
        }
        let at = counted.results.iter().sum();
        let struck = lookup.struck.iter().take(ADDRESSES).cloned().collect();
        counted.struck.insert(key, Answer { at, struck });
        if counted.struck.len() > ANSWERS {
            let oldest = counted.struck.iter().min_by_key(|(_, answer)| answer.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                counted.struck.remove(&oldest);
            }
        }
    }

    /// Forgets the look-ups of rules whose numbers have been given to other rules.
    pub(super) fn forget(&self, is_another: impl Fn(u32) -> bool) {
        self.lock().rules.retain(|rule, _| !is_another(*rule));
    }

    /// The number of look-ups so far.
    pub(super) fn total(&self) -> u64 {
        self.lock().results.iter().sum()
    }

    /// Adds all of it to what is stored for other commands.
    pub(super) fn store(&self, stored: &mut StoredNames) {
        let counted = self.lock();
        stored.lookups = counted.results;
        stored.rules.clone_from(&counted.rules);
        for ((name, _), answer) in &counted.struck {
            let of_name = stored.struck.entry(name.to_string()).or_default();
            of_name.extend(answer.struck.iter().cloned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str, verdict: &'static str, struck: &[&str]) -> LookedUp {
        let struck = struck.iter().map(|address| Struck {
            address: address.parse().unwrap(),
            set: "lan".into(),
        });
        LookedUp {
            verdict,
            name: name.into(),
            kind: "A".into(),
            rule: Some(7),
            addresses: Vec::new(),
            struck: struck.collect(),
            error: None,
        }
    }

    fn stored(tally: &Tally) -> StoredNames {
        let mut stored = StoredNames::default();
        tally.store(&mut stored);
        stored
    }

    #[test]
    fn look_ups_are_counted_by_result_and_by_rule() {
        let tally = Tally::default();
        for verdict in ["denied", "would-deny", "denied", "allowed"] {
            tally.take(&lookup("a.example.org", verdict, &[]));
        }
        tally.take(&LookedUp {
            rule: None,
            ..lookup("printer", "denied", &[])
        });
        let stored = stored(&tally);
        assert_eq!(stored.lookups, [1, 3, 1, 0, 0, 0, 0]);
        assert_eq!(stored.rules, [(7, 4)].into());
        assert_eq!(tally.total(), 5);
        for rule in 0..2 * u32::try_from(RULES).unwrap() {
            tally.take(&LookedUp {
                rule: Some(rule),
                ..lookup("a.example.org", "denied", &[])
            });
        }
        assert_eq!(self::stored(&tally).rules.len(), RULES);
        tally.forget(|rule| rule != 7);
        assert_eq!(self::stored(&tally).rules, [(7, 5)].into());
    }

    #[test]
    fn the_struck_addresses_are_those_of_the_latest_answers() {
        let tally = Tally::default();
        let struck = |tally: &Tally, name: &str| {
            let stored = stored(tally);
            let found = stored.struck.get(name).cloned().unwrap_or_default();
            found.len()
        };
        tally.take(&lookup(
            "a.example.org",
            "struck",
            &["10.0.0.1", "10.0.0.2"],
        ));
        tally.take(&LookedUp {
            kind: "AAAA".into(),
            ..lookup("a.example.org", "struck", &["fd00::1"])
        });
        assert_eq!(struck(&tally, "a.example.org"), 3);
        tally.take(&lookup("a.example.org", "allowed", &[]));
        assert_eq!(struck(&tally, "a.example.org"), 1);
        for number in 0..ANSWERS {
            let many = vec!["10.0.0.1"; 3 * ADDRESSES];
            tally.take(&lookup(&format!("n{number}.example.org"), "struck", &many));
        }
        assert_eq!(struck(&tally, "a.example.org"), 0, "it was the oldest");
        assert_eq!(struck(&tally, "n0.example.org"), ADDRESSES);
        assert_eq!(stored(&tally).struck.len(), ANSWERS);
    }
}
