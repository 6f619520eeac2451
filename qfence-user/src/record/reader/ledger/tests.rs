use qfence_common::{Halves, Sighting};

use super::*;

fn key(number: u64) -> FlowKey {
    of(number, 6)
}

fn of(number: u64, protocol: u32) -> FlowKey {
    FlowKey {
        to: Sighting {
            address: Halves {
                upper: 1,
                lower: number,
            },
            port: 80,
            protocol,
        },
        cgroup: 0,
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
            Told::Again(key, _) => Some(key.to.address.lower),
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

/// Programs count what does not fit under that key, and a reader finds by it that the fence logs what is let through.
#[test]
fn the_key_of_what_does_not_fit_is_never_forgotten() {
    let mut flows: Vec<_> = (0..=SHORT as u64)
        .map(|number| (key(number), flow(1, 1)))
        .collect();
    flows.push((OTHERS, Flow::default()));
    let mut ledger = Ledger::after(&flows);
    let mut forgotten = Vec::new();
    for _ in 0..=IDLE {
        forgotten.extend(ledger.next(&flows, false).idle);
    }
    assert!(forgotten.contains(&key(7)), "control");
    assert!(!forgotten.contains(&OTHERS));
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
    let mut map: BTreeMap<FlowKey, Flow> = (0..u64::from(abi::FLOWS) - 1)
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
        let is_it = |told: &Told| matches!(told, Told::First(found, _) if *found == key);
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

#[test]
fn a_destination_has_a_line_for_each_cgroup() {
    let of = |cgroup| FlowKey { cgroup, ..key(1) };
    let now = [(of(7), flow(1, 100)), (of(8), flow(2, 200))];
    let lines = Ledger::default().next(&now, false).lines;
    // The one with more traffic is first.
    let [Told::First(first, _), Told::First(second, _)] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!((first.cgroup, second.cgroup), (8, 7));
}
