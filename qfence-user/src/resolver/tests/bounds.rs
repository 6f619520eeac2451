//! Sizes, numbers and times.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use domain::base::{Rtype, iana::Rcode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    HANG, Scripted, Served,
    client::query,
    nameserver::{Data, address},
    until,
};
use crate::resolver::{Verdict, bucket::Rate};

/// A nameserver that knows this many addresses of each name.
async fn with_many(addresses: u8) -> Scripted {
    Scripted::by(move |asked| {
        let all = (0..addresses).map(|last| Ipv4Addr::new(192, 0, 2, last));
        let records: Vec<_> = all
            .map(|v4| (&*asked.name, 60, Data::Address(v4.into())))
            .collect();
        vec![asked.answer(Rcode::NOERROR, &records)]
    })
    .await
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_to_be_had_by_tcp() {
    let nameserver = with_many(40).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let plain = client.ask_with("a.allowed.example", Rtype::A, None).await;
    assert!(plain.is_cut && plain.length <= 512 && plain.addresses.len() > 20);
    let small = client
        .ask_with("a.allowed.example", Rtype::A, Some(100))
        .await;
    assert!(small.is_cut && small.length <= 512);
    let large = client.ask("a.allowed.example", Rtype::A).await;
    assert_eq!((large.is_cut, large.addresses.len()), (false, 40));
    let by_tcp = client.ask_by_tcp(&[("a.allowed.example", Rtype::A)]).await;
    assert_eq!((by_tcp[0].is_cut, by_tcp[0].addresses.len()), (false, 40));
}

#[tokio::test]
async fn a_name_has_at_most_64_addresses() {
    let nameserver = with_many(100).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let answers = client.ask_by_tcp(&[("a.allowed.example", Rtype::A)]).await;
    assert_eq!(answers[0].addresses.len(), 64);
    assert_eq!(served.fence.addresses(), answers[0].addresses);
}

#[tokio::test]
async fn an_answer_is_kept_as_long_as_it_is_valid() {
    let nameserver = Scripted::by(|asked| {
        let ttl = if asked.name.starts_with("zero") {
            0
        } else {
            86_400
        };
        vec![asked.answer(Rcode::NOERROR, &[(&asked.name, ttl, address("192.0.2.1"))])]
    })
    .await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    for _ in 0..3 {
        let kept = client.ask("kept.allowed.example", Rtype::A).await;
        assert_eq!(kept.ttls, [300], "clients ask again in time");
        let zero = client.ask("zero.allowed.example", Rtype::A).await;
        assert_eq!(zero.ttls, [0]);
    }
    let asked = nameserver.asked();
    let of = |begin| {
        asked
            .iter()
            .filter(|asked| asked.name.starts_with(begin))
            .count()
    };
    assert_eq!((of("kept"), of("zero")), (1, 3));
    let published = served.fence.published.lock().unwrap().clone();
    let times: Vec<_> = published
        .iter()
        .map(|(.., lasts)| lasts.as_secs())
        .collect();
    assert_eq!(
        times,
        [3600, 60, 3600, 60, 3600, 60],
        "in force again with each answer"
    );
    // Other nameservers may give other answers.
    served
        .nameservers
        .send_modify(|nameservers| nameservers.options.attempts = 1);
    let asked_again = async {
        while nameserver
            .asked()
            .iter()
            .filter(|asked| asked.name.starts_with("kept"))
            .count()
            < 2
        {
            client.ask("kept.allowed.example", Rtype::A).await;
        }
    };
    timeout(HANG, asked_again).await.unwrap();
}

#[tokio::test]
async fn without_room_an_answer_has_what_was_put_in_force() {
    let nameserver = with_many(5).await;
    let served = Served::by(&[nameserver.address]);
    served.fence.room.store(3, Ordering::Relaxed);
    let client = served.client().await;
    let some = client.ask("a.allowed.example", Rtype::A).await;
    assert_eq!(
        (some.addresses.len(), served.fence.last().verdict),
        (3, Verdict::Full)
    );
    let none = client.ask("b.allowed.example", Rtype::A).await;
    assert_eq!((none.rcode, none.negative), (Rcode::SERVFAIL.into(), None));
    assert_eq!(none.error.map(|error| error.0), Some(0));
    assert_eq!(served.fence.last().verdict, Verdict::Full);
    assert_eq!(served.handle.counts().full.get(), 7);
}

#[tokio::test]
async fn an_address_that_the_kernel_does_not_open_is_left_out_for_another_reason() {
    let nameserver = with_many(5).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    served.fence.is_broken.store(true, Ordering::Relaxed);
    let none = client.ask("a.allowed.example", Rtype::A).await;
    assert_eq!((none.rcode, none.negative), (Rcode::SERVFAIL.into(), None));
    let text = "qfence: the kernel failed to open the addresses".to_owned();
    assert_eq!(none.error, Some((0, text)));
    assert_eq!(served.fence.last().verdict, Verdict::Unpublished);
    let counts = served.handle.counts();
    assert_eq!((counts.unpublished.get(), counts.full.get()), (5, 0));
    // It is tried again for the next answer, which comes from the cache.
    served.fence.is_broken.store(false, Ordering::Relaxed);
    let all = client.ask("a.allowed.example", Rtype::A).await;
    assert_eq!(all.addresses.len(), 5);
    assert_eq!(nameserver.asked().len(), 1);
}

#[tokio::test]
async fn a_flood_waits_while_the_resolver_of_another_fence_answers() {
    const FLOOD: u16 = 20_000;
    let nameserver = with_many(1).await;
    let served = Served::by(&[nameserver.address]);
    let other = Served::by(&[nameserver.address]);
    let flood = served.client().await;
    let client = other.client().await;
    for number in 0..FLOOD {
        flood
            .send(&query(number, "evil.example", Rtype::A, None))
            .await;
        if number % 1000 == 0 {
            let found = client.ask("a.allowed.example", Rtype::A).await;
            assert_eq!(found.addresses.len(), 1, "another fence");
        }
    }
    // What it had no time for, the kernel dropped, and so perhaps the first query afterwards.
    let found = served.client().await.ask_until_answered().await;
    assert_eq!(found.addresses.len(), 1, "the fence itself, afterwards");
    assert_eq!(other.handle.counts().slowed.get(), 0);
}

#[tokio::test]
async fn queries_faster_than_the_rate_wait_for_their_turn() {
    let rate = Rate {
        a_second: 20,
        burst: 5,
    };
    let begin = Instant::now();
    let served = Served::at_rate(rate);
    let client = served.client().await;
    for id in 0..10 {
        client
            .send(&query(id, "evil.example", Rtype::A, None))
            .await;
    }
    // A connection takes a turn, and each query on it.
    let questions = [("evil.example", Rtype::A); 4];
    let by_tcp = client.ask_by_tcp(&questions).await;
    for _ in 0..10 {
        assert!(client.receive().await.is_code(Rcode::NXDOMAIN));
    }
    assert!(by_tcp.iter().all(|answer| answer.is_code(Rcode::NXDOMAIN)));
    assert_eq!(served.handle.counts().queries.get(), 14);
    // However slow the machine is, it takes no less than this.
    assert!(begin.elapsed() >= Duration::from_millis(490));
}

#[tokio::test]
async fn an_answer_with_many_addresses_counts_as_several_queries() {
    let nameserver = with_many(64).await;
    let rate = Rate {
        a_second: 20,
        burst: 5,
    };
    let served = Served::at_rate(rate);
    served
        .nameservers
        .send_modify(|nameservers| nameservers.servers = vec![nameserver.address]);
    let begin = Instant::now();
    let client = served.client().await;
    for _ in 0..3 {
        let found = client.ask("a.allowed.example", Rtype::A).await;
        assert!(found.addresses.len() > 50);
    }
    // Two answers before the last query: nine for each, without the burst.
    assert!(begin.elapsed() >= Duration::from_millis(640));
}

/// A nameserver that never answers.
async fn silent() -> Scripted {
    Scripted::by(|_| Vec::new()).await
}

#[tokio::test]
async fn queries_that_wait_are_bounded_and_others_are_still_answered() {
    let nameserver = silent().await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let counts = served.handle.counts();
    for number in 0..300_u16 {
        let name = format!("n{number}.allowed.example");
        client.send(&query(number, &name, Rtype::A, None)).await;
        until(|| counts.queries.get() == u64::from(number) + 1).await;
    }
    assert!(
        counts.dropped.get() > 0,
        "those that ended since may have made room for some"
    );
    assert!(nameserver.asked().len() <= 256);
    let by_tcp = client.ask_by_tcp(&[("evil.example", Rtype::A)]).await;
    assert!(by_tcp[0].is_code(Rcode::NXDOMAIN));
}

#[tokio::test]
async fn questions_to_nameservers_are_bounded_in_number() {
    let nameserver = silent().await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let counts = served.handle.counts();
    for number in 0..100_u16 {
        let name = format!("n{number}.allowed.example");
        client.send(&query(number, &name, Rtype::A, None)).await;
    }
    until(|| counts.asked.get() == 100).await;
    until(|| nameserver.asked().len() >= 64).await;
    // Time for more to arrive, if more were sent.
    for _ in 0..20 {
        served.client().await.ask("evil.example", Rtype::A).await;
    }
    // A question takes ten seconds to end; before that, no other one takes its place.
    let first: BTreeSet<_> = nameserver
        .asked()
        .into_iter()
        .map(|asked| asked.name)
        .collect();
    assert!(first.len() <= 64 || counts.unanswered.get() > 0);
}

#[tokio::test]
async fn connections_are_bounded_and_long_queries_end_them() {
    let nameserver = Scripted::with(vec![]).await;
    let served = Served::by(&[nameserver.address]);
    let mut stream = TcpStream::connect(served.v4()).await.unwrap();
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    let closed = timeout(HANG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    let counts = served.handle.counts();
    let mut open = Vec::new();
    let all = async {
        while counts.dropped.get() == 0 {
            open.push(TcpStream::connect(served.v4()).await.unwrap());
        }
    };
    timeout(HANG, all).await.unwrap();
    assert!(open.len() > 64, "{}", open.len());
}
