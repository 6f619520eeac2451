//! Prefixes within each other as intervals side by side: what the longest prefix says of each address.

use ipnet::Ipv6Net;
use qfence_common::Node;

use crate::policy::{Prefix, rule::V4};

/// Where each interval of addresses begins, the first at 0, and what it says; neighbours say different
/// things.
pub(super) type Intervals = Vec<(u128, Node)>;

/// Prefixes that are being laid side by side.
#[derive(Default)]
pub(super) struct Flattened {
    intervals: Intervals,
    /// The last address of each of the prefixes that hold the one at hand, and what it says.
    around: Vec<(u128, Node)>,
}

impl Flattened {
    /// Adds a prefix: each after those that hold it, `::/0` first, and in the order of addresses.
    pub(super) fn add(&mut self, prefix: Prefix, says: Node) {
        let (first, last) = bounds(prefix);
        self.end_before(Some(first));
        self.begin(first, says);
        self.around.push((last, says));
    }

    /// The intervals, when all prefixes are added.
    pub(super) fn finish(mut self) -> Intervals {
        self.end_before(None);
        self.intervals
    }

    /// Goes on behind the prefixes that end before an address with what is around them.
    fn end_before(&mut self, first: Option<u128>) {
        while let Some((last, _)) = self
            .around
            .pop_if(|(last, _)| first.is_none_or(|to| *last < to))
        {
            if let (Some(next), Some((_, says))) = (last.checked_add(1), self.around.last()) {
                self.begin(next, *says);
            }
        }
    }

    fn begin(&mut self, at: u128, says: Node) {
        // What begins at the same address lies within.
        self.intervals.pop_if(|(begins, _)| *begins == at);
        if self
            .intervals
            .last()
            .is_none_or(|(_, before)| *before != says)
        {
            self.intervals.push((at, says));
        }
    }
}

fn bounds(prefix: Ipv6Net) -> (u128, u128) {
    (prefix.network().to_bits(), prefix.broadcast().to_bits())
}

/// The intervals of IPv4, by the lower halves of addresses: their upper halves are 0.
pub(super) fn v4_of(intervals: &Intervals) -> Vec<(u64, Node)> {
    let (first, last) = bounds(V4);
    let within = intervals.partition_point(|(begins, _)| *begins <= first);
    // The one that has the first address may begin before.
    let at_first = within.checked_sub(1).map(|index| (0, intervals[index].1));
    let after = intervals[within..]
        .iter()
        .take_while(|(begins, _)| *begins <= last)
        .map(|(begins, says)| (lower(*begins), *says));
    at_first.into_iter().chain(after).collect()
}

/// The intervals of IPv6. What is said of IPv4 there is never asked for.
pub(super) fn without_v4(intervals: &Intervals) -> Intervals {
    let (first, last) = bounds(V4);
    let mut all: Intervals = Vec::with_capacity(intervals.len());
    let mut within = None;
    for &(begins, says) in intervals {
        if begins > last
            && let Some(says) = within.take()
            && begins != last + 1
        {
            all.push((last + 1, says));
        }
        if (first..=last).contains(&begins) {
            within = Some(says);
        } else {
            all.push((begins, says));
        }
    }
    if let Some(says) = within {
        all.push((last + 1, says));
    }
    all.dedup_by_key(|(_, says)| *says);
    all
}

/// The intervals by the upper halves of addresses: for each half at which one begins, where that and
/// others begin in the lower half.
pub(super) fn split(intervals: &Intervals) -> Vec<(u64, Vec<(u64, Node)>)> {
    let mut all: Vec<(u64, Vec<(u64, Node)>)> = Vec::new();
    let mut says_last = None;
    for &(begins, says) in intervals {
        let half = upper(begins);
        match all.last_mut() {
            Some((last, lower_halves)) if *last == half => lower_halves.push((lower(begins), says)),
            _ => {
                end_half(&mut all, says_last, Some(half));
                let before = says_last
                    .filter(|_| lower(begins) != 0)
                    .map(|says| (0, says));
                let here = (lower(begins), says);
                all.push((half, before.into_iter().chain([here]).collect()));
            }
        }
        says_last = Some(says);
    }
    end_half(&mut all, says_last, None);
    all
}

/// Ends the last half before the next, if it is cut into several: behind it the last of them goes on.
fn end_half(all: &mut Vec<(u64, Vec<(u64, Node)>)>, says: Option<Node>, next: Option<u64>) {
    let Some((half, lower_halves)) = all.last() else {
        return;
    };
    if let (true, Some(behind), Some(says)) = (lower_halves.len() > 1, half.checked_add(1), says)
        && next != Some(behind)
    {
        all.push((behind, vec![(0, says)]));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the half that is meant")]
const fn lower(address: u128) -> u64 {
    address as u64
}

const fn upper(address: u128) -> u64 {
    lower(address >> 64)
}
