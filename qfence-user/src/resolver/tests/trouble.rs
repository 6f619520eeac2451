//! Nameservers and times that make trouble.

use std::{net::IpAddr, sync::atomic::Ordering};

use domain::base::{Rtype, iana::Rcode};
use tokio::{net::UdpSocket, time::timeout};

use super::{
    HANG, Scripted, Served,
    client::query,
    nameserver::{Asked, address},
    until,
};
use crate::resolver::{Transport, Verdict};

pub(super) const RIGHT: &str = "192.0.2.1";
const WRONG: &str = "192.0.2.66";

pub(super) fn right() -> Vec<IpAddr> {
    vec![RIGHT.parse().unwrap()]
}

pub(super) fn answer(asked: &Asked, text: &str) -> Vec<u8> {
    asked.answer(Rcode::NOERROR, &[(&asked.name, 60, address(text))])
}

/// Asks for an allowed name, which must have the right address.
async fn resolves(served: &Served) {
    let found = served.ask("a.allowed.example", Rtype::A).await;
    assert_eq!(found.addresses, right());
    assert_eq!(served.fence.addresses(), right());
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_taken() {
    let nameserver = Scripted::by(|asked| {
        let mut other_id = answer(asked, WRONG);
        other_id[0] ^= 1;
        let mut other_name = answer(asked, WRONG);
        other_name[13] = b'b';
        let mut other_kind = answer(asked, WRONG);
        other_kind[12 + 19 + 1] = 28;
        let no_answer = asked.bytes.clone();
        let short = answer(asked, WRONG)[..11].to_vec();
        let garbage = b"\xff".repeat(300);
        let right = answer(asked, RIGHT);
        vec![
            other_id,
            other_name,
            other_kind,
            no_answer,
            short,
            garbage,
            Vec::new(),
            right,
        ]
    })
    .await;
    resolves(&Served::by(&[nameserver.address])).await;
    assert_eq!(nameserver.asked().len(), 1);
}

#[tokio::test]
async fn datagrams_from_other_sources_are_not_received() {
    // The nameserver is silent. The stranger sends to the source of each query, and so does the nameserver afterwards.
    let nameserver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let served = Served::by(&[nameserver.local_addr().unwrap()]);
    let client = served.client().await;
    client
        .send(&query(1, "a.allowed.example", Rtype::A, None))
        .await;
    let mut buffer = [0; 512];
    let received = timeout(HANG, nameserver.recv_from(&mut buffer)).await;
    let (length, source) = received.unwrap().unwrap();
    let asked = Asked::of(&buffer[..length], Transport::Udp);
    stranger
        .send_to(&answer(&asked, WRONG), source)
        .await
        .unwrap();
    nameserver
        .send_to(&answer(&asked, RIGHT), source)
        .await
        .unwrap();
    assert_eq!(client.receive().await.addresses, right());
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_asked_for_by_tcp() {
    let nameserver = Scripted::by(|asked| {
        let text = if asked.transport == Transport::Udp {
            WRONG
        } else {
            RIGHT
        };
        let mut message = answer(asked, text);
        if asked.transport == Transport::Udp {
            message[2] |= 2;
        }
        vec![message]
    })
    .await;
    resolves(&Served::by(&[nameserver.address])).await;
    let by: Vec<_> = nameserver
        .asked()
        .iter()
        .map(|asked| asked.transport)
        .collect();
    assert_eq!(by, [Transport::Udp, Transport::Tcp]);
}

#[tokio::test]
async fn a_nameserver_without_edns_is_asked_without() {
    let nameserver = Scripted::by(|asked| match asked.bytes[11] {
        0 => vec![answer(asked, RIGHT)],
        // Such nameservers send no more than a header.
        _ => vec![[&asked.bytes[..2], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]].concat()],
    })
    .await;
    resolves(&Served::by(&[nameserver.address])).await;
    assert_eq!(nameserver.asked().len(), 2);
}

#[tokio::test]
async fn the_next_nameserver_is_asked_if_one_fails() {
    for code in [Rcode::SERVFAIL, Rcode::REFUSED] {
        let failing = Scripted::by(move |asked| vec![asked.answer(code, &[])]).await;
        let working = Scripted::by(|asked| vec![answer(asked, RIGHT)]).await;
        let served = Served::by(&[failing.address, working.address]);
        resolves(&served).await;
        assert_eq!((failing.asked().len(), working.asked().len()), (1, 1));
        // The one that answered is asked first from now on.
        served.ask("b.allowed.example", Rtype::A).await;
        assert_eq!((failing.asked().len(), working.asked().len()), (1, 2));
    }
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let working = Scripted::by(|asked| vec![answer(asked, RIGHT)]).await;
    resolves(&Served::by(&[nobody, working.address])).await;
}

#[tokio::test]
async fn a_silent_nameserver_is_given_up() {
    let silent = Scripted::by(|_| Vec::new()).await;
    let working = Scripted::by(|asked| vec![answer(asked, RIGHT)]).await;
    let served = Served::by(&[silent.address, working.address]);
    served
        .nameservers
        .send_modify(|nameservers| nameservers.options.timeout = HANG / 60);
    resolves(&served).await;
    assert_eq!(silent.asked().len(), 1);
}

#[tokio::test]
async fn without_an_answer_the_look_up_fails_and_says_why() {
    let served = Served::by(&[]);
    let client = served.client().await;
    let failed = client.ask("a.allowed.example", Rtype::A).await;
    assert_eq!(
        (failed.rcode, failed.negative),
        (Rcode::SERVFAIL.into(), None)
    );
    let text = "the host has no nameserver".to_owned();
    assert_eq!(failed.error, Some((22, text)));
    assert_eq!(served.fence.last().verdict, Verdict::Failed);
    let failing = Scripted::by(|asked| vec![asked.answer(Rcode::SERVFAIL, &[])]).await;
    served
        .nameservers
        .send_modify(|nameservers| nameservers.servers = vec![failing.address]);
    let failed = client.ask("a.allowed.example", Rtype::A).await;
    assert!(failed.is_code(Rcode::SERVFAIL));
    let text = "a nameserver of the host answers SERVFAIL".to_owned();
    assert_eq!(failed.error.map(|error| error.1), Some(text));
    assert_eq!(
        failing.asked().len(),
        2,
        "as many attempts as resolv.conf has by default"
    );
}

#[tokio::test]
async fn rules_that_change_while_a_nameserver_is_asked_decide() {
    let nameserver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let served = Served::by(&[nameserver.local_addr().unwrap()]);
    let client = served.client().await;
    for (id, denies_all) in [(1, false), (2, true)] {
        let name = format!("n{id}.allowed.example");
        client.send(&query(id, &name, Rtype::A, None)).await;
        let mut buffer = [0; 512];
        let received = timeout(HANG, nameserver.recv_from(&mut buffer)).await;
        let (length, source) = received.unwrap().unwrap();
        served.fence.denies_all.store(denies_all, Ordering::Relaxed);
        let asked = Asked::of(&buffer[..length], Transport::Udp);
        nameserver
            .send_to(&answer(&asked, RIGHT), source)
            .await
            .unwrap();
        let answered = client.receive().await;
        assert_eq!(answered.is_code(Rcode::NXDOMAIN), denies_all);
        assert_eq!(served.fence.addresses(), right(), "of the first alone");
    }
}

#[tokio::test]
async fn equal_questions_on_their_way_are_asked_once_and_all_answered() {
    let nameserver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let served = Served::by(&[nameserver.local_addr().unwrap()]);
    let clients = [
        served.client().await,
        served.client().await,
        served.client().await,
    ];
    let counts = served.handle.counts();
    for (sent, client) in (1..).zip(&clients) {
        client
            .send(&query(9, "a.allowed.example", Rtype::A, None))
            .await;
        until(|| counts.queries.get() == sent).await;
    }
    let mut buffer = [0; 512];
    let received = timeout(HANG, nameserver.recv_from(&mut buffer)).await;
    let (length, source) = received.unwrap().unwrap();
    let asked = Asked::of(&buffer[..length], Transport::Udp);
    nameserver
        .send_to(&answer(&asked, RIGHT), source)
        .await
        .unwrap();
    for client in &clients {
        assert_eq!(client.receive().await.addresses, right());
    }
    assert_eq!(counts.asked.get(), 1);
}
