//! The rates at which a resolver works.

use std::time::{Duration, Instant};

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// How many per second.
    pub(super) a_second: u32,
    /// How many at once after a pause.
    pub(super) burst: u32,
}

/// The rate of questions to nameservers. They cost others something, and carry data out.
pub(super) const QUESTIONS: Rate = Rate {
    a_second: 200,
    burst: 400,
};

/// The rate of all queries of a fence, whatever the answer.
pub(super) const QUERIES: Rate = Rate {
    a_second: 8_000,
    burst: 4_000,
};

/// A token bucket: each piece of work takes a token, or waits for its turn.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The time between two tokens.
    each: Duration,
    /// The time in which as many tokens are due as a burst has.
    bursts_for: Duration,
    /// When the next token would be due if all of the burst had been taken.
    due: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        let each = Duration::from_secs(1) / rate.a_second;
        let bursts_for = each * rate.burst;
        Self {
            each,
            bursts_for,
            due: now.checked_sub(bursts_for).unwrap_or(now),
        }
    }

    /// Takes tokens. Returns how long to wait before they may be used.
    pub(super) fn take(&mut self, tokens: u32, now: Instant) -> Duration {
        let earliest = now.checked_sub(self.bursts_for).unwrap_or(self.due);
        self.due = self.due.max(earliest) + self.each * tokens;
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_what_follows_waits() {
        let start = Instant::now();
        let Rate { a_second, burst } = QUESTIONS;
        let mut bucket = Bucket::new(QUESTIONS, start);
        let each = bucket.each;
        for _ in 0..burst {
            assert_eq!(bucket.take(1, start), Duration::ZERO);
        }
        assert_eq!(bucket.take(1, start), each);
        assert_eq!(bucket.take(1, start), 2 * each);
        let later = start + Duration::from_secs(1);
        for _ in 0..a_second - 2 {
            assert_eq!(bucket.take(1, later), Duration::ZERO);
        }
        assert_eq!(bucket.take(3, later), 3 * each);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(burst, much_later), Duration::ZERO);
        assert_ne!(bucket.take(1, much_later), Duration::ZERO);
    }
}
