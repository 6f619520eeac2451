//! The answers of nameservers, as long as they are valid.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::found::{Found, Kind};
use crate::policy::domain::DomainName;

/// The most answers.
const ENTRIES: usize = 1024;

/// The most bytes of all answers.
const BYTES: usize = 1 << 20;

/// A question to nameservers.
pub(super) type Key = (DomainName, Kind);

struct Entry {
    found: Arc<Found>,
    until: Instant,
}

/// The answers, by question. They are what nameservers said, without any decision of a policy.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    bytes: usize,
}

impl Cache {
    /// The answer to a question, and how many seconds it is still valid.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<(Arc<Found>, u32)> {
        let entry = self.entries.get(key)?;
        let left = entry.until.checked_duration_since(now)?.as_secs();
        // The last second is left out: what was valid for a second is never given out with no time left.
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        (left > 0).then(|| (Arc::clone(&entry.found), left))
    }

    /// Keeps an answer. If there is no room, those go first that end first.
    pub(super) fn put(&mut self, key: Key, found: Arc<Found>, now: Instant) {
        self.remove(&key);
        if found.ttl == 0 {
            return;
        }
        let size = size(&key, &found);
        while self.entries.len() >= ENTRIES || self.bytes + size > BYTES {
            let first = self.entries.iter().min_by_key(|(_, entry)| entry.until);
            let Some(first) = first.map(|(key, _)| key.clone()) else {
                return;
            };
            self.remove(&first);
        }
        let until = now + found.lasts();
        self.bytes += size;
        self.entries.insert(key, Entry { found, until });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= size(key, &entry.found);
        }
    }
}

fn size(key: &Key, found: &Found) -> usize {
    key.0.as_str().len() + size_of::<(Key, Entry)>() + found.size()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn key(text: &str) -> Key {
        (text.parse().unwrap(), Kind::A)
    }

    fn found(addresses: usize, ttl: u32) -> Arc<Found> {
        Arc::new(Found {
            no_name: false,
            aliases: Vec::new(),
            addresses: vec![Ipv4Addr::LOCALHOST.into(); addresses],
            ttl,
        })
    }

    #[test]
    fn an_answer_ends_with_its_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(key("a.org"), found(1, 60), now);
        let get = |cache: &Cache, after| {
            let at = now + Duration::from_secs(after);
            cache.get(&key("a.org"), at).map(|(_, left)| left)
        };
        assert_eq!(get(&cache, 0), Some(60));
        assert_eq!(get(&cache, 59), Some(1));
        assert_eq!(get(&cache, 60), None);
        assert_eq!(get(&cache, 61), None);
        assert!(cache.get(&(key("a.org").0, Kind::Aaaa), now).is_none());
        cache.put(key("a.org"), found(1, 0), now);
        assert_eq!(get(&cache, 0), None, "without time to live");
    }

    #[test]
    fn those_go_first_that_end_first() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in (0_u32..).take(ENTRIES + 5) {
            let name = key(&format!("n{number}.org"));
            cache.put(name, found(1, 100 + number), now);
        }
        assert_eq!(cache.entries.len(), ENTRIES);
        assert!(cache.get(&key("n4.org"), now).is_none());
        assert!(cache.get(&key("n5.org"), now).is_some());
    }

    #[test]
    fn bytes_are_bounded_and_counted_back() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..ENTRIES {
            let name = key(&format!("n{number}.org"));
            cache.put(name.clone(), found(64, 100), now);
            cache.put(name, found(64, 100), now);
            assert!(cache.bytes <= BYTES);
        }
        assert!(cache.entries.len() > 100);
        let keys: Vec<_> = cache.entries.keys().cloned().collect();
        keys.iter().for_each(|key| cache.remove(key));
        assert_eq!(cache.bytes, 0);
    }
}
