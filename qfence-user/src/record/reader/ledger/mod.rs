//! Which lines tell what was let through: pure. A destination has a line when it is first reached, and then one a
//! minute, if anything was let through since.
//!
//! The kernel has room for a number of destinations, and a process can reach as many in a few milliseconds. If room gets
//! short, destinations are forgotten: those without traffic, and those that still wait for their first line, which become a
//! part of a sum. The kernel counts their connections all the same, and makes entries for them again. So a process cannot
//! keep later destinations off the record for longer than it goes on.

use std::{cmp::Reverse, collections::BTreeMap, mem};

use qfence_common::{Flow, FlowKey, OTHERS, Protocol, abi};

/// The most lines for new destinations per second. The others wait.
const FIRSTS: usize = 20;
/// How many of these lines can be saved up. Each second adds one.
const CREDIT: u32 = 600;
/// The most lines for known destinations per minute, and at the end. The others wait; at the end, they are one line.
const TOTALS: usize = 60;
/// The number of seconds between lines about a destination.
const PERIOD: u64 = 60;

/// A destination is forgotten after so many seconds without traffic, if room gets short.
const IDLE: u32 = 60;
/// The number of destinations above which room is short.
const SHORT: usize = abi::FLOWS as usize / 4 * 3;

/// A line to write, with the traffic since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The first line about a destination.
    First(FlowKey, Flow),
    /// A further one.
    Again(FlowKey, Flow),
    /// One about several destinations, or about those that had no room (0).
    Several(u64, Flow),
}

/// What was told so far.
pub(super) struct Ledger {
    known: BTreeMap<FlowKey, Known>,
    /// The seconds since the start.
    now: u64,
    /// How many lines for new destinations can be written.
    credit: u32,
    /// The traffic of a second ago with those that wait for their first line.
    waiting: BTreeMap<FlowKey, Flow>,
    /// The number of destinations that were forgotten before their first line, and their traffic, since the last line about
    /// such.
    forgotten: (u64, Flow),
}

struct Known {
    /// The traffic that lines have told.
    told: Flow,
    /// The traffic of a second ago, and the seconds since it changed.
    last: Flow,
    idle: u32,
    /// The second of the last line.
    told_at: u64,
}

/// The lines of a second, and the destinations to forget.
#[derive(Default)]
pub(super) struct Second {
    pub(super) lines: Vec<Told>,
    pub(super) idle: Vec<FlowKey>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::after(&[])
    }
}

impl Ledger {
    /// A ledger for a fence of which another reader has told what there was until now.
    pub(super) fn after(flows: &[(FlowKey, Flow)]) -> Self {
        let known = |(key, flow): &(FlowKey, Flow)| (*key, Known::told(*flow, 0));
        Self {
            known: flows.iter().map(known).collect(),
            now: 0,
            credit: CREDIT,
            waiting: BTreeMap::new(),
            forgotten: (0, Flow::default()),
        }
    }

    /// Compares with what was let through until now. To be called once per second, and at the end.
    pub(super) fn next(&mut self, flows: &[(FlowKey, Flow)], is_end: bool) -> Second {
        self.now += 1;
        self.credit = (self.credit + 1).min(CREDIT);
        let is_time = is_end || self.now.is_multiple_of(PERIOD);
        let is_short = flows.len() > SHORT;
        let mut second = Second::default();
        let mut rest = (0, Flow::default());
        let mut due = Vec::new();
        let before = mem::take(&mut self.waiting);
        let mut fresh = Vec::new();
        for (key, flow) in flows {
            let Some(known) = self.known.get_mut(key) else {
                if *key == OTHERS {
                    self.known
                        .insert(OTHERS, Known::told(Flow::default(), self.now));
                } else {
                    fresh.push((*key, *flow));
                }
                continue;
            };
            known.idle = if *flow == known.last {
                known.idle + 1
            } else {
                0
            };
            known.last = *flow;
            let since = since(flow, &known.told);
            if since != none(flow) {
                due.push((known.told_at, Reverse(bytes(&since)), *key, since));
            } else if is_short && known.idle >= IDLE && *key != OTHERS {
                second.idle.push(*key);
            }
        }
        // Those that say most have their line first: a flood must not keep it from a connection.
        fresh.sort_by_key(|(key, flow)| Reverse(weight(key, flow)));
        for (key, flow) in fresh {
            if self.credit > 0 && second.lines.len() < FIRSTS {
                self.credit -= 1;
                second.lines.push(Told::First(key, flow));
                self.known.insert(key, Known::told(flow, self.now));
            } else if is_end {
                add(&mut rest, &flow);
            } else {
                self.waiting.insert(key, flow);
            }
        }
        if is_time {
            // Those that have waited longest go first.
            due.sort_by_key(|(told_at, bytes, key, _)| (*told_at, *bytes, *key));
            let told = due.len().min(TOTALS);
            for (_, _, key, since) in due.drain(..told) {
                second.lines.push(match key {
                    OTHERS => Told::Several(0, since),
                    _ => Told::Again(key, since),
                });
                if let Some(known) = self.known.get_mut(&key) {
                    known.told = known.last;
                    known.told_at = self.now;
                }
            }
        }
        if is_end {
            due.iter().for_each(|(.., since)| add(&mut rest, since));
        }
        let surplus = flows.len().saturating_sub(second.idle.len() + SHORT);
        for key in self.least(&before, surplus) {
            if let Some(flow) = self.waiting.remove(&key) {
                add(&mut self.forgotten, &flow);
            }
            second.idle.push(key);
        }
        for key in &second.idle {
            self.known.remove(key);
        }
        if is_time {
            let (count, flow) = mem::take(&mut self.forgotten);
            if count > 0 {
                second.lines.push(Told::Several(count, flow));
            }
        }
        if rest.0 > 0 {
            second.lines.push(Told::Several(rest.0, rest.1));
        }
        second
    }
}

impl Ledger {
    /// Returns this many of those that wait for their first line and had no traffic for a second: UDP and pings first, and
    /// those with the least traffic.
    fn least(&self, before: &BTreeMap<FlowKey, Flow>, count: usize) -> Vec<FlowKey> {
        if count == 0 {
            return Vec::new();
        }
        let is_idle = |(key, flow): &(&FlowKey, &Flow)| before.get(key) == Some(*flow);
        let mut idle: Vec<_> = self.waiting.iter().filter(is_idle).collect();
        idle.sort_by_key(|(key, flow)| weight(key, flow));
        idle.iter().take(count).map(|(key, _)| **key).collect()
    }
}

impl Known {
    fn told(flow: Flow, told_at: u64) -> Self {
        Self {
            told: flow,
            last: flow,
            idle: 0,
            told_at,
        }
    }
}

/// How much a destination says of what a process does: TCP more than a datagram, and an answer more than none.
fn weight(key: &FlowKey, flow: &Flow) -> (bool, u64, u64) {
    let is_tcp = key.to.protocol == Protocol::TCP.0;
    (is_tcp, flow.received_packets, bytes(flow))
}

fn bytes(flow: &Flow) -> u64 {
    flow.sent_bytes.saturating_add(flow.received_bytes)
}

/// No traffic, by the same rule.
fn none(flow: &Flow) -> Flow {
    Flow {
        rule: flow.rule,
        ..Flow::default()
    }
}

/// The traffic between two moments.
fn since(now: &Flow, before: &Flow) -> Flow {
    let less = |now: u64, before: u64| now.saturating_sub(before);
    Flow {
        calls: less(now.calls, before.calls),
        sent_packets: less(now.sent_packets, before.sent_packets),
        sent_bytes: less(now.sent_bytes, before.sent_bytes),
        received_packets: less(now.received_packets, before.received_packets),
        received_bytes: less(now.received_bytes, before.received_bytes),
        rule: now.rule,
        reserved: 0,
    }
}

fn add((count, all): &mut (u64, Flow), more: &Flow) {
    *count += 1;
    all.calls += more.calls;
    all.sent_packets += more.sent_packets;
    all.sent_bytes += more.sent_bytes;
    all.received_packets += more.received_packets;
    all.received_bytes += more.received_bytes;
}

#[cfg(test)]
mod tests;
