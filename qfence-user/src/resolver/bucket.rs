//! The rate of questions to nameservers.

use std::time::{Duration, Instant};

/// The questions per second.
const RATE: u32 = 200;

/// The questions at once after a pause.
const BURST: u32 = 400;

/// A token bucket: each question takes a token, or waits for its turn.
#[derive(Debug)]
pub(super) struct Bucket {
    /// When the next token would be due if all of the burst had been taken.
    due: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now.checked_sub(Self::BURSTS_FOR).unwrap_or(now),
        }
    }

    /// The time between two tokens.
    const EACH: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);
    /// The time in which as many tokens are due as a burst has.
    const BURSTS_FOR: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64 * BURST as u64);

    /// Takes a token. Returns how long to wait before it may be used.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let earliest = now.checked_sub(Self::BURSTS_FOR).unwrap_or(self.due);
        self.due = self.due.max(earliest) + Self::EACH;
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_what_follows_waits() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        for _ in 0..BURST {
            assert_eq!(bucket.take(start), Duration::ZERO);
        }
        assert_eq!(bucket.take(start), Bucket::EACH);
        assert_eq!(bucket.take(start), 2 * Bucket::EACH);
        let later = start + Duration::from_secs(1);
        for _ in 0..RATE - 2 {
            assert_eq!(bucket.take(later), Duration::ZERO);
        }
        assert_eq!(bucket.take(later), Bucket::EACH);
        let much_later = start + Duration::from_secs(3600);
        for _ in 0..BURST {
            assert_eq!(bucket.take(much_later), Duration::ZERO);
        }
        assert_ne!(bucket.take(much_later), Duration::ZERO);
    }
}
