//! Which lines tell what was let through: pure. A destination has a line when it is first reached, and then one a
//! minute, if anything was let through since.

use std::{cmp::Reverse, collections::BTreeMap};

use qfence_common::{Flow, OTHERS, Sighting, abi};

/// The most lines for new destinations per second. The others wait.
const FIRSTS: u32 = 20;
/// How many of these lines can be saved up. Each second adds one.
const CREDIT: u32 = 600;
/// The most lines for known destinations per minute, and at the end. The others wait; at the end, they are one line.
const TOTALS: usize = 60;
/// The number of seconds between lines about a destination.
const PERIOD: u64 = 60;

/// A destination is forgotten after so many seconds without traffic, if room gets short.
const IDLE: u32 = 3600;
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
        }
    }

    /// Compares with what was let through until now. To be called once per second, and at the end.
    pub(super) fn next(&mut self, flows: &[(Sighting, Flow)], is_end: bool) -> Second {
        self.now += 1;
        self.credit = (self.credit + 1).min(CREDIT);
        let is_time = is_end || self.now.is_multiple_of(PERIOD);
        let is_short = flows.len() > SHORT;
        let mut second = Second::default();
        let (mut firsts, mut rest) = (self.credit.min(FIRSTS), (0, Flow::default()));
        let mut due = Vec::new();
        for (key, flow) in flows {
            let Some(known) = self.known.get_mut(key) else {
                if *key == OTHERS {
                    self.known
                        .insert(OTHERS, Known::told(Flow::default(), self.now));
                } else if firsts > 0 {
                    firsts -= 1;
                    self.credit -= 1;
                    second.lines.push(Told::First(*key, *flow));
                    self.known.insert(*key, Known::told(*flow, self.now));
                } else if is_end {
                    add(&mut rest, flow);
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
        for key in &second.idle {
            self.known.remove(key);
        }
        if rest.0 > 0 {
            second.lines.push(Told::Several(rest.0, rest.1));
        }
        second
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
            } + FIRSTS as usize;
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
        assert!(end.len() <= TOTALS + FIRSTS as usize + 1, "{}", end.len());
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

    #[test]
    fn a_later_reader_tells_what_is_new_to_it() {
        let before = [(OTHERS, Flow::default()), (key(1), flow(1, 100))];
        let mut ledger = Ledger::after(&before);
        assert!(ledger.next(&before, true).lines.is_empty());
        let now = [before[0], (key(1), flow(2, 300))];
        assert_eq!(sum(&ledger.next(&now, true).lines), (1, 200));
    }
}
