use std::time::Instant;

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{
    observe::top::{keys::Key, model::tests::sample},
    record::line::{Body, Lookup},
};

fn shown(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    terminal.backend().to_string()
}

fn model() -> Model {
    let (mut model, start) = (Model::default(), Instant::now());
    model.take(sample(start, 1));
    model.press(Key::Down);
    model.take(sample(start, 2));
    model
}

#[test]
fn at_80x24_there_are_fences_destinations_refusals_and_keys() {
    let screen = shown(&model(), 80, 24);
    for text in [
        "qfence  2 fences  by name",
        "  quiet             running          0        0    9.0K       0  ▁",
        "> wild              running        500      10K       1       0  █",
        "Allowed         0 connects        0 packets       20 bytes",
        "Refused         3 connects        2 packets      120 bytes",
        "Most frequent attempts of wild",
        "        2  tcp 127.0.0.1:22",
        "denied tcp 127.0.0.1:22 ",
        "? keys",
    ] {
        assert!(screen.contains(text), "{text:?} in\n{screen}");
    }
}

#[test]
fn members_of_a_slice_are_told_apart() {
    let (mut model, start) = (Model::default(), Instant::now());
    let mut sample = sample(start, 1);
    let lines = &mut sample.close.as_mut().unwrap().lines;
    for (line, unit) in lines.iter_mut().zip(["web", "web", "db"]) {
        line.workload = Some(format!("unit {unit}.service").into());
    }
    model.take(sample);
    model.press(Key::Down);
    let screen = shown(&model, 80, 24);
    for (unit, port) in [("web", 22), ("web", 23), ("db", 22)] {
        let what = format!("tcp 127.0.0.1:{port}");
        let row = format!("        1  {what:<24}  unit {unit}.service");
        assert!(screen.contains(&row), "{row:?} in\n{screen}");
    }
    for key in "/of unit db".chars() {
        model.press(Key::Char(key));
    }
    let screen = shown(&model, 80, 24);
    assert!(
        !screen.contains("unit web") && screen.contains("unit db"),
        "{screen}"
    );
}

#[test]
fn destinations_have_their_names_and_look_ups_are_among_them() {
    let (mut model, start) = (Model::default(), Instant::now());
    let mut sample = sample(start, 1);
    let close = sample.close.as_mut().unwrap();
    let names = ["www.example.org", "long.name.of.a.network.example"].map(str::to_owned);
    close
        .names
        .insert("127.0.0.1".parse().unwrap(), names.to_vec());
    let refused = Lookup {
        verdict: "denied".to_owned(),
        name: Some("evil.example".into()),
        kind: Some("A".into()),
        addresses: Vec::new(),
        struck: Vec::new(),
        error: None,
        rule: Some("deny any".into()),
        comment: None,
        lookups: 7,
        again: false,
    };
    let mut line = close.lines[0].clone();
    line.body = Body::Lookup(refused.into());
    close.lines.push(line);
    model.take(sample);
    model.press(Key::Down);
    let screen = shown(&model, 80, 24);
    for row in [
        "        7  lookup evil.example A                            deny any",
        "        2  tcp 127.0.0.1:22 (www.example.org, long.name.o…  deny host",
    ] {
        assert!(screen.contains(row), "{row:?} in\n{screen}");
    }
    let screen = shown(&model, 120, 24);
    let row = "  tcp 127.0.0.1:22 (www.example.org, long.name.of.a.network.example)";
    assert!(screen.contains(row), "{screen}");
    // The filter finds names that no line has.
    for key in "/network.example".chars() {
        model.press(Key::Char(key));
    }
    let screen = shown(&model, 80, 24);
    assert!(
        screen.contains("127.0.0.1:22") && !screen.contains("evil"),
        "{screen}"
    );
}

#[test]
fn what_does_not_fit_is_marked_and_what_cannot_be_read_is_said() {
    let (mut model, start) = (Model::default(), Instant::now());
    let mut sample = sample(start, 1);
    let close = sample.close.as_mut().unwrap();
    let rule = "deny tcp:a-rule-with-a-long-name.example.org:443";
    for line in &mut close.lines {
        let Body::Attempt(attempt) = &mut line.body else {
            panic!("{line}");
        };
        attempt.rule = rule.into();
    }
    close.unknown = Some("cannot read /run/qfence/wild.names".to_owned());
    model.take(sample);
    model.press(Key::Down);
    let screen = shown(&model, 80, 24);
    let rows = screen.lines().filter(|row| row.contains("127.0.0.1:22"));
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() >= 2, "one of each part: {screen}");
    for row in rows {
        assert!(row.trim_end_matches(['"', ' ']).ends_with('…'), "{row}");
    }
    let said = "attempts of wild (names are not known: cannot read /run/qfence/w";
    assert!(screen.contains(said), "{screen}");
    assert!(shown(&model, 200, 24).contains(rule));
}

#[test]
fn without_fences_it_says_so() {
    let screen = shown(&Model::default(), 80, 24);
    assert!(screen.contains("there are no fences"), "{screen}");
}

#[test]
fn rules_and_keys_lie_over_it() {
    let mut model = model();
    model.press(Key::Char('r'));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("Rules that refused"), "{screen}");
    assert!(screen.contains("host (shipped, line 7)"), "{screen}");
    model.press(Key::Escape);
    model.press(Key::Char('?'));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("select a fence"), "{screen}");
}

#[test]
fn no_size_is_too_much_for_it() {
    let mut model = model();
    for over in ['r', '?'] {
        model.press(Key::Char(over));
        for (width, height) in [(1, 1), (20, 5), (60, 12), (61, 13), (80, 24), (300, 100)] {
            let screen = shown(&model, width, height);
            assert_eq!(width < 60, !screen.contains("qfence"), "{screen}");
        }
        model.press(Key::Escape);
    }
    assert!(shown(&model, 30, 5).contains("at least 60x12"));
}
