//! The effect of keys and samples on the view.

use std::time::Duration;

use qfence_common::{Hook, Traffic, address::from_v4};

use super::*;
use crate::{fence::registry::Condition, kernel::Counts, record::line::tests::line};

/// Two fences, `tens` of seconds after the start.
pub(crate) fn sample(start: Instant, tens: u64) -> Sample {
    let seen = |name: &str, attempts: u64, bytes: u64| Seen {
        name: name.to_owned(),
        condition: Condition::Running,
        lookups: attempts / 5 * tens,
        counted: Some(Snapshot {
            counts: Counts {
                refused: attempts / 5 * 4 * tens,
                ..Counts::default()
            },
            sent: Traffic {
                bytes: bytes * tens,
                ..Traffic::default()
            },
            refused: Traffic {
                connects: 3,
                packets: 2,
                bytes: 120,
            },
            ..Snapshot::default()
        }),
    };
    let attempt = |port| line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, port, 1);
    Sample {
        at: start + Duration::from_secs(10 * tens),
        fences: vec![seen("quiet", 0, 90_000), seen("wild", 5000, 10)],
        close: Some(Close {
            name: "wild".into(),
            lines: vec![attempt(22), attempt(23), attempt(22)],
            names: NamesOfAddresses::new(),
            unknown: None,
            rules: vec![(
                "deny host".into(),
                "deny host".into(),
                "host (shipped, line 7)".into(),
            )],
        }),
    }
}

fn names(model: &Model) -> Vec<&str> {
    model.rows().map(|row| row.name.as_str()).collect()
}

#[test]
fn rates_are_known_from_the_second_sample_on() {
    let (mut model, start) = (Model::default(), Instant::now());
    model.take(sample(start, 1));
    assert!(
        model
            .rows()
            .all(|row| row.rates.is_none() && row.history.is_empty())
    );
    model.take(sample(start, 2));
    let rates: Vec<_> = model.rows().map(|row| row.rates.unwrap()).collect();
    assert_eq!((rates[0].attempts, rates[0].sent), (0, 9000));
    assert_eq!((rates[1].attempts, rates[1].sent), (500, 1));
    // Another fence with the same name, whose counters start again at 0.
    model.take(sample(start, 1));
    assert!(model.rows().last().unwrap().rates.is_none());
}

#[test]
fn fences_are_ordered_filtered_and_selected_by_keys() {
    let (mut model, start) = (Model::default(), Instant::now());
    model.take(sample(start, 1));
    model.take(sample(start, 2));
    assert_eq!(
        (names(&model), model.selected()),
        (vec!["quiet", "wild"], Some("quiet"))
    );
    model.press(Key::Down);
    model.press(Key::Down);
    assert_eq!(model.selected(), Some("wild"));
    model.press(Key::Char('s'));
    assert_eq!(names(&model), ["wild", "quiet"]);
    for key in ['s', 's'] {
        model.press(Key::Char(key));
    }
    assert_eq!(
        (names(&model), model.order()),
        (vec!["quiet", "wild"], Order::Traffic)
    );
    for key in "/qui".chars() {
        model.press(Key::Char(key));
    }
    assert_eq!(
        (names(&model), model.selected()),
        (vec!["quiet"], Some("quiet"))
    );
    model.press(Key::Escape);
    assert_eq!(names(&model).len(), 2);
    assert!(model.press(Key::Char('x')));
    assert!(!model.press(Key::Char('q')));
    assert!(!model.press(Key::Interrupt));
}

#[test]
fn what_was_tried_is_summed_up_and_filtered() {
    let (mut model, start) = (Model::default(), Instant::now());
    model.take(sample(start, 1));
    assert_eq!(model.destinations(), []);
    model.press(Key::Down);
    let counts: Vec<_> = model
        .destinations()
        .into_iter()
        .map(|to| (to.what, to.count))
        .collect();
    assert_eq!(
        counts,
        [
            ("tcp 127.0.0.1:22".into(), 2),
            ("tcp 127.0.0.1:23".into(), 1)
        ]
    );
    assert_eq!(
        model.rules(),
        [("deny host".into(), "host (shipped, line 7)".into())]
    );
    for key in "/:23".chars() {
        model.press(Key::Char(key));
    }
    model.press(Key::Enter);
    assert_eq!((names(&model).len(), model.latest().count()), (2, 1));
}

#[test]
fn nothing_changes_while_it_is_paused() {
    let (mut model, start) = (Model::default(), Instant::now());
    model.take(sample(start, 1));
    model.press(Key::Char('p'));
    model.take(sample(start, 2));
    assert!(model.rows().all(|row| row.rates.is_none()));
    model.press(Key::Char('p'));
    model.take(sample(start, 2));
    assert!(model.rows().all(|row| row.rates.is_some()));
}
