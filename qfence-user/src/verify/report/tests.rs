use super::*;
use crate::verify::closures::{
    judge::Outcome,
    report::{Cell, Row as Closed},
};

fn closures(verdicts: &[Verdict]) -> Closures {
    let row = |verdict: &Verdict| Closed {
        attempt: "signal it",
        without: Outcome::Done,
        default: Cell {
            outcome: Outcome::Failed(1),
            verdict: *verdict,
        },
        strict: None,
        mechanism: None,
    };
    Closures {
        rows: verdicts.iter().map(row).collect(),
        strict_error: None,
    }
}

fn row(verdict: Verdict) -> Row {
    Row {
        attempt: "tcp/127.0.0.1/8080".into(),
        without: End::Reached,
        with: End::Nothing,
        layers: vec!["connect4", "egress"],
        errno: Some("ECONNREFUSED".into()),
        ms: 0.25,
        verdict,
    }
}

fn report(attempts: &[Verdict], must_work: &[Verdict]) -> Report {
    let rows = |verdicts: &[Verdict]| verdicts.iter().copied().map(row).collect();
    Report::new(
        "6.1".into(),
        rows(attempts),
        rows(must_work),
        Devices::default(),
        Closures::default(),
    )
}

#[test]
fn one_fault_is_enough_and_nothing_shown_is_not() {
    use Verdict::{Broken, Passed, Stopped, Unproven, Untried, Works};
    assert!(report(&[Stopped, Untried], &[Works, Untried]).holds);
    for (attempts, must_work) in [
        (&[Stopped, Passed][..], &[Works][..]),
        (&[Stopped, Unproven], &[Works]),
        (&[Stopped], &[Works, Broken]),
        (&[Untried], &[Works]),
        (&[Stopped], &[Untried]),
        (&[], &[]),
    ] {
        let report = report(attempts, must_work);
        assert!(!report.holds, "{report:?}");
        assert!(report.sentence().starts_with("THE FENCE DOES NOT HOLD"));
    }
    assert_eq!(report(&[Stopped, Passed], &[Works]).faults().len(), 1);
}

#[test]
fn closures_alone_need_one_that_is_closed_and_count_in_the_whole() {
    use Verdict::{Broken, Open, Passed, Stopped, Untried};
    let of = |verdicts: &[Verdict]| Report::of_closures("6.1".into(), closures(verdicts));
    assert!(of(&[Stopped, Untried, Open]).holds);
    for verdicts in [&[Stopped, Passed][..], &[Stopped, Broken], &[Open], &[]] {
        assert!(!of(verdicts).holds, "{verdicts:?}");
    }
    let sentence = of(&[Stopped, Stopped, Untried]).sentence();
    let expected = "The fence holds: 2 ways out that are no packets are closed, 1 could not be tried on Linux 6.1.";
    assert_eq!(sentence, expected);
    let whole = |verdict| {
        let rows = |verdict| vec![row(verdict)];
        let closures = closures(&[verdict]);
        Report::new(
            "6.1".into(),
            rows(Stopped),
            rows(Verdict::Works),
            Devices::default(),
            closures,
        )
    };
    assert!(whole(Stopped).holds && !whole(Passed).holds);
    let text = whole(Passed).text();
    assert!(
        text.contains("DOES NOT HOLD: 1 passed, 0 are broken"),
        "{text}"
    );
}

#[test]
fn the_table_has_all_that_was_found() {
    let text = report(&[Verdict::Stopped], &[Verdict::Works]).text();
    let line = " tcp/127.0.0.1/8080         reached  nothing  connect4+egress  ECONNREFUSED  0.2  \
                stopped";
    assert!(text.contains(line), "{text}");
    assert!(text.ends_with("could not be tried on Linux 6.1."), "{text}");
}

#[test]
fn json_has_the_words_of_the_table() {
    let json = serde_json::to_string(&row(Verdict::Stopped)).unwrap();
    assert_eq!(
        json,
        r#"{"attempt":"tcp/127.0.0.1/8080","without":"reached","with":"nothing","layers":["connect4","egress"],"errno":"ECONNREFUSED","ms":0.25,"verdict":"stopped"}"#
    );
}
