use qfence_common::{Hook, address::from_v4};

use super::*;
use crate::record::line::tests::line;

fn wants(since: Option<&str>, destination: Option<&str>, line: &Line) -> bool {
    let since = since.map(|text| text.parse().unwrap());
    let destination = destination.map(|text| text.parse().unwrap());
    Filter::new(since, destination.as_ref(), &Sets::default())
        .unwrap()
        .wants(line)
}

#[test]
fn destinations_are_those_of_the_rule_grammar() {
    let loopback = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
    for (of, wanted) in [
        ("127.0.0.1", true),
        ("127.0.0.0/8", true),
        ("tcp:127.0.0.1:20-30", true),
        ("loopback", true),
        ("udp:127.0.0.1", false),
        ("127.0.0.1:23", false),
        ("[::1]", false),
        ("lan", false),
    ] {
        assert_eq!(wants(None, Some(of), &loopback), wanted, "{of}");
    }
    let mut dialled = loopback.clone();
    if let Body::Attempt(attempt) = &mut dialled.body {
        attempt.dialled = Some([10, 0, 2, 2].into());
    }
    assert!(wants(None, Some("10.0.2.2:22"), &dialled));
    let lost = Line {
        body: Body::Lost,
        ..loopback
    };
    assert!(wants(None, Some("lan"), &lost));
}

#[test]
fn a_name_selects_its_look_ups_and_what_it_led_to() {
    let mut named = line(Hook::Connect4, from_v4([192, 0, 2, 1]), 6, 443, 1);
    if let Body::Attempt(attempt) = &mut named.body
        && let Operation::Destination { names, .. } = &mut attempt.operation
    {
        *names = vec!["cdn.example.net".into(), "www.example.org".into()];
    }
    let without = line(Hook::Connect4, from_v4([192, 0, 2, 1]), 6, 443, 1);
    let lookup = |name: Option<&str>| Line {
        body: Body::Lookup(
            Lookup {
                verdict: "denied".to_owned(),
                name: name.map(Into::into),
                kind: Some("A".into()),
                addresses: Vec::new(),
                struck: Vec::new(),
                error: None,
                rule: None,
                comment: None,
                lookups: 1,
                again: false,
            }
            .into(),
        ),
        ..without.clone()
    };
    let looked_up = lookup(Some("WWW.Example.org"));
    for (of, is_named, is_looked_up) in [
        ("www.example.org", true, true),
        ("*.example.org", true, true),
        ("tcp:cdn.example.net:443", true, false),
        ("udp:cdn.example.net:443", false, false),
        ("tcp:www.example.org:80", false, true),
        ("example.org", false, false),
        ("192.0.2.1", true, false),
    ] {
        assert_eq!(wants(None, Some(of), &named), is_named, "{of}");
        assert_eq!(wants(None, Some(of), &looked_up), is_looked_up, "{of}");
    }
    assert!(!wants(None, Some("www.example.org"), &without));
    // The names of these are not known.
    assert!(wants(None, Some("www.example.org"), &lookup(None)));
}

#[test]
fn a_workload_is_named_as_people_know_it() {
    let of = |workload: Option<&str>| Line {
        workload: workload.map(Into::into),
        ..line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1)
    };
    let wants = |wanted: &str, line: &Line| {
        let filter = Filter::default().of_workload(Some(wanted.to_owned()));
        filter.wants(line)
    };
    let unit = of(Some("unit web.service"));
    for (wanted, is_shown) in [
        ("web.service", true),
        ("web", true),
        ("unit web.service", true),
        ("unit", false),
        ("web2", false),
        ("", false),
    ] {
        assert_eq!(wants(wanted, &unit), is_shown, "{wanted}");
    }
    let container = of(Some("container 0123456789ab (docker)"));
    for (wanted, is_shown) in [
        ("0123456789ab", true),
        ("0123456789abcdef", true),
        ("0123456789", false),
        ("docker", false),
    ] {
        assert_eq!(wants(wanted, &container), is_shown, "{wanted}");
    }
    assert!(wants("vm1", &of(Some("domain vm1"))));
    assert!(!wants("vm1", &of(None)));
    // What has no workload of its own.
    let lost = Line {
        body: Body::Lost,
        ..unit
    };
    assert!(wants("db", &lost));
}

#[test]
fn a_moment_is_one_or_how_long_ago() {
    let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
    assert!(wants(Some("1970-01-01T00:00:01Z"), None, &line));
    assert!(!wants(Some("1970-01-01T00:00:02Z"), None, &line));
    assert!(!wants(Some("10m"), None, &line));
    let now = Line {
        time: Timestamp::now(),
        ..line
    };
    assert!(wants(Some("10m"), None, &now));
    assert!("yesterday".parse::<Since>().is_err());
}
