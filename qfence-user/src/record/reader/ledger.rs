//! Which lines tell what was let through: pure. A destination has a line when it is first reached, and then one a
//! minute, if anything was let through since.
//!
//! The kernel has room for a number of destinations, and a process can reach as many in a few milliseconds. If room gets short,
//! destinations are forgotten: those without traffic, and those that still wait for their first line, which become a part of
//! a sum. So a process cannot keep later destinations off the record for longer than it goes on.

use std::{cmp::Reverse, collections::BTreeMap, mem};

use qfence_common::{Flow, OTHERS, Protocol, Sighting, abi};

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
    First(Sighting, Flow),
    /// A further one.
    Again(Sighting, Flow),
    /// One about several destinations, or about those that had no room (0).
    Several(u64, Flow),
}

/// What was told so far.
pub(super) struct Ledger {
    known: BTreeMap<Sighting, Known>,
    /// The seconds since the start.
    now: u64,
    /// How many lines for new destinations can be written.
    credit: u32,
    /// The traffic of a second ago with those that wait for their first line.
    waiting: BTreeMap<Sighting, Flow>,
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
    pub(super) idle: Vec<Sighting>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::after(&[])
    }
}

impl Ledger {
    /// A ledger for a fence of which another reader has told what there was until now.
    pub(super) fn after(flows: &[(Sighting, Flow)]) -> Self {
        let known = |(key, flow): &(Sighting, Flow)| (*key, Known::told(*flow, 0));
        Self {
            known: flows.iter().map(known).collect(),
            now: 0,
            credit: CREDIT,
            waiting: BTreeMap::new(),
            forgotten: (0, Flow::default()),
        }
    }

    /// Compares with what was let through until now. To be called once per second, and at the end.
    pub(super) fn next(&mut self, flows: &[(Sighting, Flow)], is_end: bool) -> Second {
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
            } else if is_short && known.idle >= IDLE {
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
    fn least(&self, before: &BTreeMap<Sighting, Flow>, count: usize) -> Vec<Sighting> {
        if count == 0 {
            return Vec::new();
        }
        let is_idle = |(key, flow): &(&Sighting, &Flow)| before.get(key) == Some(*flow);
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
fn weight(key: &Sighting, flow: &Flow) -> (bool, u64, u64) {
    let is_tcp = key.protocol == Protocol::TCP.0;
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
mod tests {
    use qfence_common::Halves;

    use super::*;

    fn key(number: u64) -> Sighting {
        Sighting {
            address: Halves {
                upper: 1,
                lower: number,
            },
            port: 80,
            protocol: 6,
        }
    }

    fn flow(calls: u64, sent: u64) -> Flow {
        Flow {
            calls,
            sent_packets: sent / 100,
            sent_bytes: sent,
            received_packets: sent / 100,
            received_bytes: 2 * sent,
            rule: 3,
            reserved: 0,
        }
    }

    /// The traffic of all lines.
    fn sum(lines: &[Told]) -> (u64, u64) {
        let all = lines.iter().map(|told| match told {
            Told::First(_, flow) | Told::Again(_, flow) | Told::Several(_, flow) => flow,
        });
        all.fold((0, 0), |(calls, sent), flow| {
            (calls + flow.calls, sent + flow.sent_bytes)
        })
    }

    #[test]
    fn a_destination_is_told_when_it_is_first_reached_and_then_by_the_minute() {
        let mut ledger = Ledger::default();
        let mut now = vec![(OTHERS, Flow::default()), (key(1), flow(1, 100))];
        let first = ledger.next(&now, false).lines;
        assert_eq!(first, [Told::First(key(1), flow(1, 100))]);
        let mut later = Vec::new();
        for second in 1..PERIOD {
            now[1].1 = flow(1, 100 + 10 * second);
            later.extend(ledger.next(&now, false).lines);
        }
        let since = Flow {
            calls: 0,
            ..flow(0, 590)
        };
        let since = Flow {
            sent_packets: 5,
            received_packets: 5,
            ..since
        };
        assert_eq!(later, [Told::Again(key(1), since)]);
        // Without traffic there is no line.
        for _ in 0..3 * PERIOD {
            assert!(ledger.next(&now, false).lines.is_empty());
        }
        assert!(ledger.next(&now, true).lines.is_empty());
        // What is not told yet is told at the end, and so is what had no room.
        now[1].1 = flow(2, 1000);
        now[0].1.calls = 4;
        let end = ledger.next(&now, true).lines;
        assert_eq!(sum(&end), (5, 310));
        assert!(
            end.iter().any(|told| matches!(told, Told::Several(0, _))),
            "{end:?}"
        );
    }

    #[test]
    fn many_destinations_have_few_lines_and_all_of_them_add_up() {
        let mut ledger = Ledger::default();
        let all = |calls| {
            let flows = (1..=3000).map(|number| (key(number), flow(calls, 100 * calls)));
            flows.collect::<Vec<_>>()
        };
        let mut lines = Vec::new();
        for second in 1..=600 {
            let more = ledger.next(&all(1 + second / 100), false).lines;
            let most = if second.is_multiple_of(PERIOD) {
                TOTALS
            } else {
                0
            } + FIRSTS;
            assert!(more.len() <= most, "{second}: {}", more.len());
            lines.extend(more);
        }
        let firsts = lines
            .iter()
            .filter(|told| matches!(told, Told::First(..)))
            .count();
        assert!((1150..=1200).contains(&firsts), "{firsts}");
        // Each of them is told again before another one is told twice.
        let again: Vec<_> = lines
            .iter()
            .filter_map(|told| match told {
                Told::Again(key, _) => Some(key.address.lower),
                _ => None,
            })
            .collect();
        let different: std::collections::BTreeSet<_> = again.iter().collect();
        // In the first minute there was nothing to tell again.
        assert_eq!((again.len(), different.len()), (9 * TOTALS, 9 * TOTALS));
        let end = ledger.next(&all(7), true).lines;
        assert!(end.len() <= TOTALS + FIRSTS + 1, "{}", end.len());
        lines.extend(end);
        assert_eq!(sum(&lines), (3000 * 7, 3000 * 700));
    }

    #[test]
    fn if_room_gets_short_idle_destinations_are_forgotten() {
        let flows: Vec<_> = (0..=SHORT as u64)
            .map(|number| (key(number), flow(1, 1)))
            .collect();
        // With room for more, nothing is forgotten.
        for (flows, expected) in [(&flows[..], 1), (&flows[..100], 0)] {
            let mut ledger = Ledger::after(flows);
            let known = ledger.known.get_mut(&key(7)).unwrap();
            known.idle = IDLE - 1;
            let idle = ledger.next(flows, false).idle;
            assert_eq!(idle, vec![key(7); expected]);
            assert_eq!(ledger.known.contains_key(&key(7)), expected == 0);
        }
    }

    /// A flood that takes all of the room is a sum two seconds later, and what comes then has its line.
    #[test]
    fn a_flood_keeps_no_later_destination_off_the_record() {
        let datagram = Flow {
            calls: 1,
            sent_packets: 1,
            sent_bytes: 29,
            ..Flow::default()
        };
        let of = |number, protocol| Sighting {
            protocol,
            ..key(number)
        };
        let mut map: BTreeMap<Sighting, Flow> = (0..u64::from(abi::FLOWS) - 1)
            .map(|number| (of(number, 17), datagram))
            .collect();
        map.insert(OTHERS, Flow::default());
        // A connection among them.
        let early = of(999_999, 6);
        map.remove(&of(7, 17));
        map.insert(early, flow(1, 100));
        let mut ledger = Ledger {
            // All lines for new destinations were written before.
            credit: 0,
            ..Ledger::default()
        };
        let mut lines = Vec::new();
        let late = of(1_000_000, 6);
        let mut all = u64::from(abi::FLOWS) - 2 + 1;
        for second in 1..=2 * PERIOD {
            if second == 4 {
                assert!(map.len() <= SHORT, "{}", map.len());
                map.insert(late, flow(1, 100));
                all += 1;
            }
            let flows: Vec<_> = map.iter().map(|(key, flow)| (*key, *flow)).collect();
            let Second { lines: more, idle } = ledger.next(&flows, second == 2 * PERIOD);
            lines.extend(more);
            for key in idle {
                map.remove(&key);
            }
        }
        // Once a line for a new destination is written, it is about them.
        let named = |key| {
            let is_it = |told: &Told| matches!(told, Told::First(of, _) if *of == key);
            lines.iter().position(is_it)
        };
        assert!(named(early) < Some(20) && named(early).is_some());
        assert!(named(late) < Some(20) && named(late).is_some());
        assert_eq!(sum(&lines).0, all);
        let several = lines
            .iter()
            .filter(|told| matches!(told, Told::Several(count, _) if *count > 0))
            .count();
        assert!((1..=3).contains(&several), "{several}");
    }

    #[test]
    fn a_later_reader_tells_what_is_new_to_it() {
        let before = [(OTHERS, Flow::default()), (key(1), flow(1, 100))];
        let mut ledger = Ledger::after(&before);
        assert!(ledger.next(&before, true).lines.is_empty());
        let now = [before[0], (key(1), flow(2, 300))];
        assert_eq!(sum(&ledger.next(&now, true).lines), (1, 200));
    }
}
