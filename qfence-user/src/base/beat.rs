//! The beat at which this process looks at files and at its fence. All looks come at multiples of their periods, and so
//! together: each time that a process is woken costs more than what it looks at.

use std::{sync::OnceLock, time::Duration};

use tokio::time::Instant;

/// The next multiple of `period`, counted from the first call in this process. It is at most a period away.
#[must_use]
pub fn next(period: Duration) -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let first = *FIRST.get_or_init(|| now);
    after(now, now.saturating_duration_since(first), period)
}

/// The time after `now` at which a multiple of `period` has passed, if `passed` has passed now.
fn after(now: Instant, passed: Duration, period: Duration) -> Instant {
    // 0 would be at once, and for ever.
    let period = period.max(Duration::from_millis(1));
    let since = passed.as_nanos() % period.as_nanos();
    now + period - Duration::from_nanos(u64::try_from(since).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_multiples_and_coincide() {
        let now = Instant::now();
        let wait = |passed: u64, period: u64| {
            let at = after(
                now,
                Duration::from_millis(passed),
                Duration::from_millis(period),
            );
            u64::try_from((at - now).as_millis()).unwrap()
        };
        assert_eq!(wait(0, 500), 500);
        assert_eq!(wait(499, 500), 1);
        assert_eq!(wait(500, 500), 500);
        for passed in [3, 700, 1999, 12_345] {
            let ends = [500, 1000, 2000].map(|period| passed + wait(passed, period));
            assert_eq!(ends[2] % 1000, 0);
            assert!(ends[0] <= ends[1] && ends[1] <= ends[2], "{ends:?}");
        }
        assert_eq!(wait(7, 0), 1);
    }
}
