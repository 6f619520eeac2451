//! The ports that a rule matches.

use std::{fmt, ops::RangeInclusive};

/// A set of ports: every port, or ranges of 1 to 65535 that are sorted and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// Every port, and protocols without ports.
    pub const EVERY: Self = Self(Vec::new());

    /// The ports in the ranges; overlapping and adjacent ranges are merged. `None` if there is no range, or if one is
    /// empty or contains port 0: leaving it out could turn the set into "every port".
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Option<Self> {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        let valid = |range: &RangeInclusive<u16>| *range.start() > 0 && !range.is_empty();
        if ranges.is_empty() || !ranges.iter().all(valid) {
            return None;
        }
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=(*last.end()).max(*range.end());
                }
                _ => merged.push(range),
            }
        }
        Some(Self(merged))
    }

    /// The port of DNS.
    #[must_use]
    pub fn dns() -> Self {
        Self(vec![53..=53])
    }

    /// The port of DNS over TLS and over QUIC.
    #[must_use]
    pub fn dns_encrypted() -> Self {
        Self(vec![853..=853])
    }

    /// The ports that every user can listen on.
    #[must_use]
    pub fn unprivileged() -> Self {
        Self(vec![1024..=u16::MAX])
    }

    /// Whether it is every port.
    #[must_use]
    pub const fn is_every(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges; none for every port.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// The ranges for comparisons. Every port is one range, which includes port 0 for "none".
    pub fn bounds(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let every = self.is_every().then_some((0, u16::MAX));
        let ranges = self.0.iter().map(|range| (*range.start(), *range.end()));
        every.into_iter().chain(ranges)
    }

    /// Whether it contains a port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.bounds()
            .any(|(first, last)| (first..=last).contains(&port))
    }

    /// The port, if there is only one.
    #[must_use]
    pub fn single(&self) -> Option<u16> {
        match self.0.as_slice() {
            [range] if range.start() == range.end() => Some(*range.start()),
            _ => None,
        }
    }
}

/// `80,443,8000-8080`; empty for every port.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports(ranges: &[RangeInclusive<u16>]) -> Ports {
        Ports::new(ranges.iter().cloned()).unwrap()
    }

    #[test]
    fn ranges_are_sorted_and_merged() {
        let merged = ports(&[443..=443, 80..=80, 8000..=8080, 81..=90, 8040..=9000]);
        assert_eq!(merged.ranges(), [80..=90, 443..=443, 8000..=9000]);
        assert_eq!(merged.to_string(), "80-90,443,8000-9000");
        let all = ports(&[65_535..=65_535, 1..=65_534]);
        assert_eq!(all.ranges(), [1..=65_535]);
        let all = ports(&[1..=65_535, 5..=9, 65_535..=65_535]);
        assert_eq!(all.ranges(), [1..=65_535]);
    }

    #[test]
    fn what_is_no_range_never_becomes_every_port() {
        assert_eq!(Ports::new([]), None);
        assert_eq!(Ports::new([0..=0]), None);
        assert_eq!(Ports::new([80..=80, 0..=9]), None);
        #[expect(clippy::reversed_empty_ranges, reason = "it is what is tested")]
        let reversed = 9..=8;
        assert_eq!(Ports::new([reversed]), None);
    }

    #[test]
    fn every_port_is_one_range_with_none() {
        assert_eq!(Ports::EVERY.bounds().collect::<Vec<_>>(), [(0, u16::MAX)]);
        assert!(Ports::EVERY.contains(0) && Ports::EVERY.contains(65_535));
        assert_eq!(Ports::EVERY.to_string(), "");
        assert!(!ports(&[1..=65_535]).contains(0));
    }

    #[test]
    fn one_port_is_single() {
        assert_eq!(Ports::dns().single(), Some(53));
        assert_eq!(ports(&[53..=54]).single(), None);
        assert_eq!(ports(&[53..=53, 80..=80]).single(), None);
        assert_eq!(Ports::EVERY.single(), None);
    }

    proptest! {
        #[test]
        fn merging_keeps_every_port_and_adds_none(
            ranges in prop::collection::vec((1..=200u16, 1..=200u16), 1..8),
        ) {
            let ranges = ranges.into_iter().map(|(a, b)| a.min(b)..=a.max(b));
            let ranges: Vec<_> = ranges.collect();
            let ports = Ports::new(ranges.clone()).unwrap();
            for port in 0..=210 {
                let given = ranges.iter().any(|range| range.contains(&port));
                prop_assert_eq!(ports.contains(port), given);
            }
            for pair in ports.ranges().windows(2) {
                prop_assert!(pair[0].end() + 1 < *pair[1].start());
            }
        }
    }
}
