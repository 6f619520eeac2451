//! What is answered.

use std::{net::IpAddr, time::Duration};

use domain::base::{Rtype, iana::Rcode};

use super::{
    Client, Fence, Scripted, Served,
    fence::{ALLOWS, DENIES},
    nameserver::{Data, address},
};
use crate::resolver::{Transport, Verdict};

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn an_allowed_name_is_in_force_when_it_is_answered() {
    let records = vec![
        ("a.allowed.example", 100, address("192.0.2.1")),
        ("a.allowed.example", 70, address("192.0.2.2")),
    ];
    let nameserver = Scripted::with(records).await;
    let served = Served::by(&[nameserver.address]);
    let answer = served.ask("A.Allowed.example", Rtype::A).await;
    let addresses = ips(&["192.0.2.1", "192.0.2.2"]);
    assert_eq!(answer.addresses, addresses);
    assert_eq!(answer.name, "A.Allowed.example", "as it was asked");
    assert_eq!(answer.ttls, [70, 70]);
    let each = |address| (address, vec![Fence::grant()], Duration::from_secs(100));
    let published: Vec<_> = addresses.iter().copied().map(each).collect();
    assert_eq!(*served.fence.published.lock().unwrap(), published);
    let lookup = served.fence.last();
    assert_eq!((&*lookup.name, &*lookup.kind), ("a.allowed.example", "A"));
    assert_eq!(
        (lookup.verdict, lookup.rule),
        (Verdict::Allowed, Some(ALLOWS))
    );
    assert_eq!((lookup.addresses, lookup.ttl), (addresses, 70));
    let [asked] = &nameserver.asked()[..] else {
        panic!("one question");
    };
    assert_eq!(asked.name, "a.allowed.example", "in lower case");
    // A header with the bit for recursion, the question, and options without data.
    let rest = [
        &asked.bytes[12..31],
        b"\0\x01\0\x01",
        b"\0\0\x29\x04\xd0\0\0\0\0\0\0",
    ]
    .concat();
    assert_eq!(asked.bytes[2..12], [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(asked.bytes[12..], rest);
}

#[tokio::test]
async fn a_refused_name_does_not_exist_and_is_asked_of_nobody() {
    let nameserver = Scripted::with(vec![]).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    for kind in [Rtype::A, Rtype::AAAA, Rtype::TXT, Rtype::ANY] {
        let answer = client.ask("Evil.example", kind).await;
        assert!(answer.is_code(Rcode::NXDOMAIN));
        assert_eq!((&*answer.name, answer.negative), ("Evil.example", Some(5)));
        let text = format!("qfence: rule {DENIES} does not allow this name");
        assert_eq!(answer.error, Some((17, text)));
        let lookup = served.fence.last();
        assert_eq!(
            (lookup.verdict, lookup.rule),
            (Verdict::Denied, Some(DENIES))
        );
    }
    let plain = client.ask_with("evil.example", Rtype::A, None).await;
    assert_eq!((plain.rcode, plain.error), (Rcode::NXDOMAIN.into(), None));
    for name in ["printer", "a\\.b.allowed.example", "."] {
        let answer = client.ask(name, Rtype::A).await;
        assert!(answer.is_code(Rcode::NXDOMAIN), "{name}");
        assert_eq!(served.fence.last().rule, None, "{name}");
    }
    assert!(nameserver.asked().is_empty());
    // The control.
    client.ask("a.allowed.example", Rtype::A).await;
    assert_eq!(nameserver.asked().len(), 1);
}

#[tokio::test]
async fn aliases_are_followed_from_the_name_that_was_asked_and_nothing_else() {
    let nameserver = Scripted::with(vec![
        ("other.example", 60, address("192.0.2.66")),
        ("c.cdn.example", 60, address("192.0.2.1")),
        ("b.cdn.example", 20, Data::Alias("c.cdn.example")),
        ("a.allowed.example", 300, Data::Alias("B.cdn.example")),
        ("b.cdn.example", 60, address("192.0.2.67")),
    ])
    .await;
    let served = Served::by(&[nameserver.address]);
    let answer = served.ask("a.allowed.example", Rtype::A).await;
    assert_eq!(answer.addresses, ips(&["192.0.2.1"]));
    assert_eq!(answer.aliases, ["B.cdn.example.", "c.cdn.example."]);
    assert_eq!(answer.ttls, [20; 3]);
    assert_eq!(served.fence.addresses(), ips(&["192.0.2.1"]));
    let lasts = served.fence.published.lock().unwrap()[0].2;
    assert_eq!(
        lasts,
        Duration::from_secs(60),
        "30 s at least, and as much after it"
    );
}

#[tokio::test]
async fn a_loop_of_aliases_is_a_failure() {
    let nameserver = Scripted::with(vec![
        ("a.allowed.example", 60, Data::Alias("b.example")),
        ("b.example", 60, Data::Alias("a.allowed.example")),
        ("a.allowed.example", 60, address("192.0.2.1")),
    ])
    .await;
    let served = Served::by(&[nameserver.address]);
    let answer = served.ask("a.allowed.example", Rtype::A).await;
    assert!(answer.is_code(Rcode::SERVFAIL));
    assert!(served.fence.addresses().is_empty());
    assert_eq!(served.fence.last().verdict, Verdict::Failed);
}

#[tokio::test]
async fn other_types_of_allowed_names_are_empty() {
    let nameserver = Scripted::with(vec![]).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    for kind in [
        Rtype::TXT,
        Rtype::HTTPS,
        Rtype::MX,
        Rtype::ANY,
        Rtype::CNAME,
    ] {
        let answer = client.ask("a.allowed.example", kind).await;
        assert_eq!(
            (answer.rcode, answer.negative),
            (Rcode::NOERROR.into(), Some(5))
        );
    }
    // Those about a service of the name too, and it is no refusal.
    let service = "_http._tcp.open.example";
    let answer = client.ask(service, Rtype::SRV).await;
    let lookup = served.fence.last();
    assert_eq!(
        (answer.rcode, lookup.verdict),
        (Rcode::NOERROR.into(), Verdict::Allowed)
    );
    for (name, kind) in [(service, Rtype::A), ("_http._tcp.evil.example", Rtype::SRV)] {
        assert!(client.ask(name, kind).await.is_code(Rcode::NXDOMAIN));
    }
    let discovery = client.ask("_dns.resolver.arpa", Rtype::SVCB).await;
    assert_eq!(
        (discovery.rcode, discovery.negative),
        (Rcode::NOERROR.into(), Some(5))
    );
    let canary = client.ask("use-application-dns.net", Rtype::A).await;
    assert_eq!((canary.rcode, canary.error), (Rcode::NXDOMAIN.into(), None));
    assert!(nameserver.asked().is_empty());
}

#[tokio::test]
async fn names_that_do_not_exist_do_not_exist() {
    let nameserver = Scripted::by(|asked| vec![asked.answer(Rcode::NXDOMAIN, &[])]).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    for _ in 0..2 {
        let answer = client.ask("a.allowed.example", Rtype::A).await;
        assert!(answer.is_code(Rcode::NXDOMAIN));
        assert!(answer.negative.is_some_and(|seconds| seconds <= 5));
        assert_eq!(served.fence.last().verdict, Verdict::Allowed);
    }
}

#[tokio::test]
async fn private_addresses_are_struck() {
    let private = ["10.0.0.1", "127.0.0.1"];
    let nameserver = Scripted::by(move |asked| {
        let all = [&private[..], &["192.0.2.1"]].concat();
        let taken = if asked.name.starts_with("some") {
            &all[..]
        } else {
            &private
        };
        let records: Vec<_> = taken
            .iter()
            .map(|text| (&*asked.name, 60, address(text)))
            .collect();
        vec![asked.answer(Rcode::NOERROR, &records)]
    })
    .await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let some = client.ask("some.allowed.example", Rtype::A).await;
    assert_eq!(some.addresses, ips(&["192.0.2.1"]));
    let reasons: Vec<_> = served
        .fence
        .last()
        .struck
        .iter()
        .map(|struck| struck.1)
        .collect();
    assert_eq!(reasons, ["lan", "loopback"]);
    let none = client.ask("none.allowed.example", Rtype::A).await;
    assert_eq!(
        (none.rcode, none.negative),
        (Rcode::NOERROR.into(), Some(5))
    );
    let text = "qfence: no name opens 10.0.0.1, which is of lan".to_owned();
    assert_eq!(none.error, Some((17, text)));
    assert_eq!(served.fence.addresses(), ips(&["192.0.2.1"]));
    // A name whose addresses are not opened leads where the policy of addresses lets it.
    let open = client.ask("open.example", Rtype::A).await;
    assert_eq!(open.addresses, ips(&private));
    assert_eq!(served.fence.addresses(), ips(&["192.0.2.1"]));
}

#[tokio::test]
async fn several_questions_are_answered_on_one_connection_and_over_ipv6() {
    let nameserver = Scripted::by(|asked| {
        let text = if asked.kind == Rtype::A {
            "192.0.2.1"
        } else {
            "2001:db8::1"
        };
        vec![asked.answer(Rcode::NOERROR, &[(&asked.name, 60, address(text))])]
    })
    .await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let questions = [
        ("a.allowed.example", Rtype::A),
        ("a.allowed.example", Rtype::AAAA),
        ("evil.example", Rtype::A),
    ];
    let answers = client.ask_by_tcp(&questions).await;
    assert_eq!(answers[0].addresses, ips(&["192.0.2.1"]));
    assert_eq!(answers[1].addresses, ips(&["2001:db8::1"]));
    assert!(answers[2].is_code(Rcode::NXDOMAIN));
    assert_eq!(served.fence.last().transport, Transport::Tcp);
    let endpoint = served.handle.endpoint();
    if endpoint.has_v6 {
        let v6 = Client::of(([0, 0, 0, 0, 0, 0, 0, 1], endpoint.port).into()).await;
        let answer = v6.ask("a.allowed.example", Rtype::AAAA).await;
        assert_eq!(answer.addresses, ips(&["2001:db8::1"]));
    }
}
