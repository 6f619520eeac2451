//! Who is no client, what is no query, and the end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use domain::base::Rtype;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    HANG, Scripted, Served,
    client::query,
    trouble::{RIGHT, answer, right},
    until,
};
use crate::resolver::Sockets;

#[tokio::test]
async fn strangers_get_no_answer() {
    let nameserver = Scripted::by(|asked| vec![answer(asked, RIGHT)]).await;
    let served = Served::by(&[nameserver.address]);
    let client = served.client().await;
    let counts = served.handle.counts();
    served.fence.knows_nobody.store(true, Ordering::Relaxed);
    client
        .send(&query(1, "a.allowed.example", Rtype::A, None))
        .await;
    until(|| counts.strangers.get() == 1).await;
    let mut stream = TcpStream::connect(served.v4()).await.unwrap();
    let closed = timeout(HANG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!(counts.strangers.get(), 2);
    assert!(served.fence.addresses().is_empty());
    // The control: the same client, as one of the fence. Its first query was not kept.
    served.fence.knows_nobody.store(false, Ordering::Relaxed);
    client
        .send(&query(2, "a.allowed.example", Rtype::A, None))
        .await;
    let answered = client.receive().await;
    assert_eq!((answered.id, answered.addresses), (2, right()));
}

#[tokio::test]
async fn malformed_queries_are_answered_by_errors_or_dropped() {
    let served = Served::by(&[]);
    let client = served.client().await;
    let counts = served.handle.counts();
    for dropped in [&b""[..], b"short", &[0xff; 12]] {
        client.send(dropped).await;
    }
    until(|| counts.malformed.get() == 3).await;
    let mut update = query(5, "a.allowed.example", Rtype::A, None);
    update[2] |= 5 << 3;
    let mut buffer = [0; 512];
    let receive = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    receive.send_to(&update, served.v4()).await.unwrap();
    let length = timeout(HANG, receive.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(buffer[..length], [0, 5, 0xa9, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn it_ends_with_its_handle() {
    let ended = Arc::new(AtomicBool::default());
    let silent = Scripted::by(|_| Vec::new()).await;
    let served = Served::by(&[silent.address]);
    let client = served.client().await;
    client
        .send(&query(1, "a.allowed.example", Rtype::A, None))
        .await;
    until(|| !silent.asked().is_empty()).await;
    let endpoint = served.handle.endpoint();
    assert!(served.handle.is_alive());
    let waiter = Arc::clone(&ended);
    let handle = served.handle;
    let thread = std::thread::spawn(move || {
        handle.end().unwrap();
        waiter.store(true, Ordering::Relaxed);
    });
    until(|| ended.load(Ordering::Relaxed)).await;
    thread.join().unwrap();
    Sockets::bind_to(endpoint.v4, endpoint.port).unwrap();
}
