//! The counters of a fence at one time: attempts and traffic.

use anyhow::Result;
use qfence_common::{Direction, Traffic};

use crate::kernel::{Counts, Maps, local_in, pins::Pins};

/// The counters of one fence. They are read one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The attempts.
    pub counts: Counts,
    /// The traffic that was sent.
    pub sent: Traffic,
    /// The traffic that was refused, in both directions.
    pub refused: Traffic,
    /// The traffic that was received.
    pub received: Traffic,
}

impl Snapshot {
    /// Reads the counters of a fence.
    ///
    /// # Errors
    /// If its maps do not exist, or belong to another version.
    pub fn of(pins: &Pins, name: &str) -> Result<Self> {
        let maps = Maps::open(&pins.directory(name))?;
        let mut counted = Self {
            counts: maps.counts()?,
            sent: maps.traffic(Direction::Sent)?,
            refused: maps.traffic(Direction::Refused)?,
            received: maps.traffic(Direction::Received)?,
        };
        counted.add_drops(local_in::drops(pins.bpffs(), name)?);
        Ok(counted)
    }

    /// Adds packets that the second layer dropped, which only counts them. They have no length.
    fn add_drops(&mut self, drops: u64) {
        self.counts.refused += drops;
        self.counts.repeated += drops;
        self.refused.packets += drops;
    }
}

/// Formats a number of bytes in at most five characters: `0`, `999`, `1.5K`, `23M`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if number < 1000 {
        return number.to_string();
    }
    let mut scaled = number;
    let mut rest = 0;
    let mut unit = "";
    for next in UNITS {
        if scaled < 1000 {
            break;
        }
        (rest, scaled, unit) = (scaled % 1000, scaled / 1000, next);
    }
    match scaled {
        0..10 => format!("{scaled}.{}{unit}", rest / 100),
        _ => format!("{scaled}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_second_layer_drops_is_refused_and_on_record() {
        let mut counted = Snapshot::default();
        (counted.counts.refused, counted.counts.first) = (3, 3);
        counted.add_drops(7);
        assert_eq!(counted.counts.on_record(), 10);
        assert_eq!((counted.counts.first, counted.counts.repeated), (3, 7));
        assert_eq!((counted.refused.packets, counted.refused.bytes), (7, 0));
    }

    #[test]
    fn bytes_are_a_few_characters() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1590, "1.5K"),
            (23_456_789, "23M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
