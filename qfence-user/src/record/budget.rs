//! Limits how much is written per second: pure arithmetic.

/// The maximum number of lines per second. Two of these seconds can fall into one second of the wall clock; even then
/// there are fewer than 200 lines.
pub const LINES: usize = 95;
/// The maximum number of lines for events. The rest is reserved for summaries of repeats.
const EVENTS: usize = 60;
/// The maximum size of the JSON per second, in bytes.
const BYTES: usize = 48 * 1024;
/// Lines that are always written: one for folded and one for lost attempts.
const RESERVED: usize = 2;

/// The rest of a second's budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    lines: usize,
    bytes: usize,
}

impl Budget {
    /// Whether there is room for one more event.
    #[must_use]
    pub const fn has_event(&self) -> bool {
        self.lines < EVENTS && self.bytes < BYTES
    }

    /// Whether there is room for one more summary.
    #[must_use]
    pub const fn has_summary(&self) -> bool {
        self.lines < LINES - RESERVED && self.bytes < BYTES
    }

    /// Deducts a line of this size.
    pub const fn take(&mut self, bytes: usize) {
        self.lines += 1;
        self.bytes += bytes;
    }

    /// Starts the next second.
    pub const fn renew(&mut self) {
        *self = Self { lines: 0, bytes: 0 };
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
}
