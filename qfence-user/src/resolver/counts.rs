//! Counters of a resolver.

use std::sync::atomic::{AtomicU64, Ordering};

use super::reach::Reach;

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of a resolver.
#[derive(Debug, Default)]
pub struct Counts {
    /// Queries that were read.
    pub queries: Counter,
    /// Queries and connections of others than the fence's processes: they get no answer.
    pub strangers: Counter,
    /// Messages that are no queries or are malformed.
    pub malformed: Counter,
    /// Queries and connections that were dropped because too many waited.
    pub dropped: Counter,
    /// Queries and connections that waited, because the fence asks faster than its rate.
    pub slowed: Counter,
    /// Answers from the cache.
    pub cached: Counter,
    /// Questions to nameservers: one for each name and type, however many nameservers are asked.
    pub asked: Counter,
    /// Those of them that no nameserver answered.
    pub unanswered: Counter,
    /// Addresses that did not fit among those in force.
    pub full: Counter,
    /// Addresses that the kernel failed to put in force.
    pub unpublished: Counter,
    /// Whether nameservers answer.
    pub(super) reach: Reach,
}
