//! Limits how much is written per second and, while a flood lasts, per minute: pure arithmetic.

/// The maximum number of lines per second. Two of these seconds can fall into one second of the wall clock; even then
/// there are fewer than 200 lines.
pub const LINES: usize = 95;
/// The maximum number of lines for events. The rest is reserved for summaries of repeats.
const EVENTS: usize = 60;
/// The maximum size of the JSON per second, in bytes.
const BYTES: usize = 48 * 1024;
/// Lines that are always written: one for folded and one for lost attempts.
const RESERVED: usize = 2;

/// How many seconds of full lines can be written before the lines are saved.
const FIRST: usize = 20;
/// The number of seconds between summaries while lines are saved.
pub const PERIOD: usize = 60;
/// The cost of a line, in units of which each second adds [`LINES`]: a minute adds the lines of a second.
const COST: usize = PERIOD;
/// The most units that can be saved up.
const FULL: usize = FIRST * LINES * COST;
/// The units for the lines of a whole second.
const SECOND: usize = LINES * COST;

/// The rest of a second's budget, and that of a flood.
///
/// A second may have [`LINES`] lines. A flood would write so many for as long as it lasts, so after [`FIRST`] such
/// seconds lines are saved: repeats are summarised once per [`PERIOD`], and there is an event line only for what a
/// minute adds, the lines of one second.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    lines: usize,
    bytes: usize,
    /// The units that are left for a flood.
    left: usize,
    /// While lines are saved: the number of seconds to the next summary.
    to_summary: Option<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            lines: 0,
            bytes: 0,
            left: FULL,
            to_summary: None,
        }
    }
}

impl Budget {
    /// Whether there is room for one more event.
    #[must_use]
    pub const fn has_event(&self) -> bool {
        self.lines < EVENTS
            && self.bytes < BYTES
            && (self.to_summary.is_none() || self.left >= COST)
    }

    /// Whether there is room for one more summary.
    #[must_use]
    pub const fn has_summary(&self) -> bool {
        self.lines < LINES - RESERVED && self.bytes < BYTES
    }

    /// Whether there is room for one more line about what the second layer for frames has dropped. Such lines come every
    /// second, so a flood leaves them the room of events.
    #[must_use]
    pub const fn has_drop(&self) -> bool {
        match self.to_summary {
            Some(_) => self.has_event(),
            None => self.has_summary(),
        }
    }

    /// Whether the counts of this second are kept for the next summary.
    #[must_use]
    pub const fn is_saving(&self) -> bool {
        matches!(self.to_summary, Some(1..))
    }

    /// Deducts a line of this size.
    pub const fn take(&mut self, bytes: usize) {
        self.lines += 1;
        self.bytes += bytes;
        self.left = self.left.saturating_sub(COST);
    }

    /// Starts the next second.
    pub fn renew(&mut self) {
        self.lines = 0;
        self.bytes = 0;
        self.left = (self.left + LINES).min(FULL);
        let is_short = self.left < SECOND;
        self.to_summary = match self.to_summary {
            Some(seconds @ 1..) => Some(seconds - 1),
            // The flood lasts, or has begun.
            _ if is_short => Some(PERIOD - 1),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_leave_room_for_summaries() {
        let mut budget = Budget::default();
        let mut events = 0;
        while budget.has_event() {
            budget.take(100);
            events += 1;
        }
        let mut summaries = 0;
        while budget.has_summary() {
            budget.take(100);
            summaries += 1;
        }
        assert_eq!((events, summaries), (EVENTS, LINES - RESERVED - EVENTS));
        budget.renew();
        assert!(budget.has_event());
    }

    #[test]
    fn long_lines_are_fewer() {
        let mut budget = Budget::default();
        budget.take(BYTES);
        assert!(!budget.has_event() && !budget.has_summary());
    }

    /// Writes as many lines for one second as there is room for; returns their number.
    fn second(budget: &mut Budget, events: usize, summaries: usize) -> usize {
        let mut lines = 0;
        for _ in 0..events {
            if budget.has_event() {
                budget.take(450);
                lines += 1;
            }
        }
        if !budget.is_saving() {
            for _ in 0..summaries {
                if budget.has_summary() {
                    budget.take(450);
                    lines += 1;
                }
            }
        }
        budget.renew();
        lines
    }

    #[test]
    fn a_flood_is_written_by_the_second_and_then_by_the_minute() {
        let mut budget = Budget::default();
        let lines: Vec<_> = (0..3600).map(|_| second(&mut budget, 1000, 1000)).collect();
        assert!(
            lines[..FIRST]
                .iter()
                .all(|lines| *lines == LINES - RESERVED)
        );
        for minute in lines[FIRST + PERIOD..].chunks_exact(PERIOD) {
            let all = minute.iter().sum::<usize>();
            assert!((LINES - RESERVED..=2 * LINES).contains(&all), "{all}");
            let summaries = minute.iter().filter(|lines| **lines > 10).count();
            assert_eq!(summaries, 1, "{minute:?}");
            // An attempt of a new key is still seen at once, now and then.
            let events = minute.iter().filter(|lines| **lines > 0).count();
            assert!(events > PERIOD / 2, "{minute:?}");
        }
    }

    #[test]
    fn what_the_second_layer_drops_is_bounded_like_all_else() {
        let mut budget = Budget::default();
        let lines: Vec<_> = (0..3600)
            .map(|_| {
                let mut lines = 0;
                while budget.has_drop() {
                    budget.take(450);
                    lines += 1;
                }
                budget.renew();
                lines
            })
            .collect();
        assert!(
            lines[..FIRST]
                .iter()
                .all(|lines| *lines == LINES - RESERVED)
        );
        for minute in lines[FIRST + PERIOD..].chunks_exact(PERIOD) {
            let all = minute.iter().sum::<usize>();
            assert!((LINES - RESERVED..=2 * LINES).contains(&all), "{all}");
        }
    }

    #[test]
    fn after_a_flood_lines_are_written_at_once_again() {
        let mut budget = Budget::default();
        for _ in 0..600 {
            second(&mut budget, 1000, 1000);
        }
        let mut silent = 0;
        while budget.is_saving() || !budget.has_event() || budget.to_summary.is_some() {
            second(&mut budget, 0, 0);
            silent += 1;
        }
        assert!(silent <= 2 * PERIOD, "{silent}");
        // The control: a little every second is no flood, however long it lasts.
        let mut budget = Budget::default();
        for _ in 0..100_000 {
            assert_eq!(second(&mut budget, 0, 1), 1);
        }
    }
}
