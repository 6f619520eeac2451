use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, mpsc},
};

use super::*;
use crate::observe::metrics::address::Address;

/// A generous limit for a hang, not a measurement. Waiting for the connections one after the other would take longer.
const HANG: Duration = Duration::from_secs(20);

#[test]
fn metrics_are_served_at_their_path_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
    let server = Server::start(listener, Arc::new(|| Ok("x 1\n".to_owned()))).unwrap();
    let ask = |what: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        write!(stream, "{what} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains("content-type: application/openmetrics-text"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nx 1\n"), "{answer}");
    assert!(ask("GET /").starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics").starts_with("HTTP/1.1 405 "));
    drop(server);
    assert!(!path.exists());
}

#[test]
fn those_who_say_nothing_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
    let _server = Server::start(listener, Arc::new(|| Ok("x 1\n".to_owned()))).unwrap();
    let connect = || UnixStream::connect(&path).unwrap();
    // Connections that send nothing, and connections that send half a request.
    let mut idle: Vec<_> = (0..64).map(|_| connect()).collect();
    for stream in idle.iter_mut().step_by(2) {
        // It may have been closed already.
        let _ = stream.write_all(b"GET /metr");
    }
    let mut stream = connect();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    // Idle connections that still have a place lose it after a while.
    let last = idle.pop().unwrap();
    last.set_read_timeout(Some(HANG)).unwrap();
    let mut rest = Vec::new();
    (&last).read_to_end(&mut rest).unwrap();
}

#[test]
fn those_who_ask_and_do_not_read_take_nobodys_answer() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let Listener::Tcp(socket) = &listener else {
        panic!("it is TCP");
    };
    let address = socket.local_addr().unwrap();
    // The text does not fit into the buffers of a connection, and takes some time.
    let source = || {
        thread::sleep(Duration::from_millis(300));
        Ok("x 1\n".repeat(2 << 20))
    };
    let _server = Server::start(listener, Arc::new(source)).unwrap();
    let ask = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    };
    // One connection before the others, and one after them.
    let mut first = ask();
    let deaf: Vec<_> = (0..3 * AT_ONCE).map(|_| ask()).collect();
    let mut last = ask();
    for stream in [&mut first, &mut last] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{}", answer.len());
        assert!(answer.ends_with("x 1\n"), "{}", answer.len());
    }
    drop(deaf);
}

#[test]
fn a_source_that_is_stuck_stalls_neither_others_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
    let (let_go, stuck) = mpsc::channel::<()>();
    let stuck = Mutex::new(stuck);
    let source = move || {
        let _ = stuck.lock().map(|stuck| stuck.recv());
        Ok(String::new())
    };
    let server = Server::start(listener, Arc::new(source)).unwrap();
    let ask = |what: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        write!(stream, "GET {what} HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    let mut waiting = ask("/metrics");
    let mut answer = String::new();
    ask("/").read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");
    answer.clear();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
    drop(server);
    drop(let_go);
}
