//! Decides how soon after an announcement the routes are read: single changes at once, bursts together.

use std::time::{Duration, Instant};

use super::announcements::News;

/// The time between readings while changes continue that add no address.
const REST: Duration = Duration::from_secs(1);

/// The time between readings while new addresses arrive.
const STEP: Duration = Duration::from_millis(500);

/// How many readings for new addresses may follow each other without a pause.
const AHEAD: u32 = 4;

/// Schedules readings of the routes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The time of the last reading.
    last: Option<Instant>,
    /// The earliest time of the next reading, if all readings were [`STEP`] apart.
    next: Option<Instant>,
}

impl Pace {
    /// Records a reading.
    pub(super) fn read_at(&mut self, now: Instant) {
        self.last = Some(now);
        self.next = Some(self.next.map_or(now, |next| next.max(now)) + STEP);
    }

    /// When to read for news that arrive now. At once if the last reading was long enough ago. For a new address that
    /// is [`STEP`] after [`AHEAD`] readings in a row, for other news [`REST`].
    pub(super) fn due(&self, news: News, now: Instant) -> Instant {
        let (Some(last), Some(next)) = (self.last, self.next) else {
            return now;
        };
        let due = match news {
            News::Other => last + REST,
            News::Address => {
                let ahead = next.checked_sub(STEP * (AHEAD - 1)).unwrap_or(now);
                ahead.min(last + STEP)
            }
        };
        due.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(duration: Duration) -> u128 {
        duration.as_millis()
    }

    /// The times of the readings that these announcements cause, with the first reading at 0.
    fn readings(announcements: impl IntoIterator<Item = (u64, News)>) -> Vec<u128> {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut due: Option<Instant> = None;
        let mut found = Vec::new();
        pace.read_at(start);
        for (at, news) in announcements {
            let at = start + Duration::from_millis(at);
            if let Some(read) = due.take_if(|due| *due <= at) {
                pace.read_at(read);
                found.push(milliseconds(read - start));
            }
            let soon = pace.due(news, at);
            due = Some(due.map_or(soon, |due| due.min(soon)));
            if let Some(read) = due.take_if(|due| *due <= at) {
                pace.read_at(read);
                found.push(milliseconds(read - start));
            }
        }
        found.extend(due.map(|due| milliseconds(due - start)));
        found
    }

    #[test]
    fn single_changes_are_read_at_once() {
        for news in [News::Address, News::Other] {
            let single = readings([(1500, news), (5000, news)]);
            assert_eq!(single, [1500, 5000], "{news:?}");
        }
    }

    #[test]
    fn a_new_address_is_read_at_once_while_other_changes_wait() {
        let other = |at| (at, News::Other);
        let found = readings([
            other(1000),
            other(1010),
            (1020, News::Address),
            other(1030),
            other(1040),
        ]);
        assert_eq!(found, [1000, 1020, 2020]);
    }

    #[test]
    fn changes_that_go_on_are_read_together_and_none_waits_for_long() {
        for (news, at_most, apart) in [(News::Other, 11, 1010), (News::Address, 24, 510)] {
            let found = readings((100..10_100).step_by(10).map(|at| (at, news)));
            assert!(found.len() <= at_most, "{news:?}: {found:?}");
            let gaps = found.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.max() <= Some(apart), "{news:?}: {found:?}");
        }
    }
}
