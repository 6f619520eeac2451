//! Turns nested prefixes into adjacent intervals of addresses, each with the step of its longest prefix.

use ipnet::Ipv6Net;
use qfence_common::Node;

use crate::policy::{Prefix, rule::V4};

/// The first address of each interval, the first being 0, and its step in the tree. Neighbours have different steps.
pub(super) type Intervals = Vec<(u128, Node)>;

/// Turns prefixes into intervals.
#[derive(Default)]
pub(super) struct Flattened {
    intervals: Intervals,
    /// The last address and the step of each prefix that contains the current one.
    around: Vec<(u128, Node)>,
}

impl Flattened {
    /// Adds a prefix. Prefixes must be added in the order of addresses, each after those that contain it, `::/0`
    /// first.
    pub(super) fn add(&mut self, prefix: Prefix, step: Node) {
        let (first, last) = bounds(prefix);
        self.end_before(Some(first));
        self.begin(first, step);
        self.around.push((last, step));
    }

    /// The intervals, after all prefixes were added.
    pub(super) fn finish(mut self) -> Intervals {
        self.end_before(None);
        self.intervals
    }

    /// Ends the prefixes that end before an address. The prefix around each of them continues after it.
    fn end_before(&mut self, first: Option<u128>) {
        while let Some((last, _)) = self
            .around
            .pop_if(|(last, _)| first.is_none_or(|to| *last < to))
        {
            if let (Some(next), Some((_, step))) = (last.checked_add(1), self.around.last()) {
                self.begin(next, *step);
            }
        }
    }

    fn begin(&mut self, at: u128, step: Node) {
        // An interval that begins at the same address belongs to a containing prefix.
        self.intervals.pop_if(|(begins, _)| *begins == at);
        if self
            .intervals
            .last()
            .is_none_or(|(_, before)| *before != step)
        {
            self.intervals.push((at, step));
        }
    }
}

fn bounds(prefix: Ipv6Net) -> (u128, u128) {
    (prefix.network().to_bits(), prefix.broadcast().to_bits())
}

/// The intervals of IPv4, by the lower halves of addresses. Their upper halves are 0.
pub(super) fn v4_of(intervals: &Intervals) -> Vec<(u64, Node)> {
    let (first, last) = bounds(V4);
    let within = intervals.partition_point(|(begins, _)| *begins <= first);
    // The interval that contains the first address may begin before it.
    let at_first = within.checked_sub(1).map(|index| (0, intervals[index].1));
    let after = intervals[within..]
        .iter()
        .take_while(|(begins, _)| *begins <= last)
        .map(|(begins, step)| (lower(*begins), *step));
    at_first.into_iter().chain(after).collect()
}

/// The intervals of IPv6. The part for IPv4 is left out, since it is never looked up.
pub(super) fn without_v4(intervals: &Intervals) -> Intervals {
    let (first, last) = bounds(V4);
    let mut all: Intervals = Vec::with_capacity(intervals.len());
    let mut within = None;
    for &(begins, step) in intervals {
        if begins > last
            && let Some(step) = within.take()
            && begins != last + 1
        {
            all.push((last + 1, step));
        }
        if (first..=last).contains(&begins) {
            within = Some(step);
        } else {
            all.push((begins, step));
        }
    }
    if let Some(step) = within {
        all.push((last + 1, step));
    }
    all.dedup_by_key(|(_, step)| *step);
    all
}

/// The intervals by upper halves of addresses. For each upper half in which an interval begins: the intervals of the
/// lower halves.
pub(super) fn split(intervals: &Intervals) -> Vec<(u64, Vec<(u64, Node)>)> {
    let mut all: Vec<(u64, Vec<(u64, Node)>)> = Vec::new();
    let mut last_step = None;
    for &(begins, step) in intervals {
        let half = upper(begins);
        match all.last_mut() {
            Some((last, lower_halves)) if *last == half => lower_halves.push((lower(begins), step)),
            _ => {
                end_half(&mut all, last_step, Some(half));
                let before = last_step
                    .filter(|_| lower(begins) != 0)
                    .map(|step| (0, step));
                let here = (lower(begins), step);
                all.push((half, before.into_iter().chain([here]).collect()));
            }
        }
        last_step = Some(step);
    }
    end_half(&mut all, last_step, None);
    all
}

/// Ends the last upper half. If it has several intervals, the last of them continues in the next upper half.
fn end_half(all: &mut Vec<(u64, Vec<(u64, Node)>)>, step: Option<Node>, next: Option<u64>) {
    let Some((half, lower_halves)) = all.last() else {
        return;
    };
    if let (true, Some(behind), Some(step)) = (lower_halves.len() > 1, half.checked_add(1), step)
        && next != Some(behind)
    {
        all.push((behind, vec![(0, step)]));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the half that is meant")]
const fn lower(address: u128) -> u64 {
    address as u64
}

const fn upper(address: u128) -> u64 {
    lower(address >> 64)
}
