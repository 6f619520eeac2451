//! How much is written in a second, whatever is tried: pure arithmetic.

/// How many lines there are at most in a second. With the second before, which it may share one on the wall
/// clock with, that is less than 200.
pub const LINES: usize = 95;
/// How many of them are for what is new, so that there is room for summaries of what is not.
const EVENTS: usize = 60;
/// How many bytes of JSON there are at most in a second.
const BYTES: usize = 48 * 1024;
/// Lines that are always written: of what was folded, and of what was lost.
const RESERVED: usize = 2;

/// What is left of a second's lines.
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

    /// Takes the room of a line of that many bytes.
    pub const fn take(&mut self, bytes: usize) {
        self.lines += 1;
        self.bytes += bytes;
    }

    /// Begins another second.
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
