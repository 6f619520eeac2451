//! Repeats one attempt as fast as possible.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use qfence_user::probe::{Datagram, HELLO, Method, Options, Sending};
use tests::probe::{Ending, Flood};

use crate::{
    attempt::{Attempt, errno_name, socket_address},
    connect::udp_socket,
};

pub(crate) fn run(attempt: &Attempt, text: &str, count: u64, limit: Duration) -> Result<Flood> {
    let once: Box<dyn Fn() -> String> = match one_socket(attempt)? {
        Some((sending, address)) => {
            let socket = udp_socket(address).context("open a socket")?;
            Box::new(move || {
                name(match sending {
                    Sending::Connected => socket.connect(address).and_then(|()| socket.send(HELLO)),
                    _ => socket.send_to(HELLO, address),
                })
            })
        }
        None => Box::new(move || {
            let result = attempt.make(text, limit);
            result.errno.unwrap_or_else(|| {
                let ending = match result.ending {
                    Ending::Reached => "reached",
                    Ending::Sent => "sent",
                    Ending::Timeout => "timeout",
                    Ending::Failed => "failed",
                    Ending::Unsupported => "unsupported",
                    Ending::Unprivileged => "unprivileged",
                };
                ending.to_owned()
            })
        }),
    };
    let mut endings = BTreeMap::new();
    let start = Instant::now();
    for _ in 0..count {
        *endings.entry(once()).or_insert(0) += 1;
    }
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    Ok(Flood {
        attempt: text.to_owned(),
        count,
        ms,
        endings,
    })
}

/// The call and the destination of a flood of datagrams, if one socket can send all of them. That is faster, and no answer
/// is awaited.
fn one_socket(attempt: &Attempt) -> Result<Option<(Sending, SocketAddr)>> {
    let Attempt::Probe(probe) = attempt else {
        return Ok(None);
    };
    let Method::Datagram(Datagram::Udp, sending) = probe.method else {
        return Ok(None);
    };
    let is_plain = matches!(sending, Sending::SendTo | Sending::Connected)
        && probe.options == Options::default();
    let address = socket_address(&probe.destination.to_string(), probe.port)?;
    Ok(is_plain.then_some((sending, address)))
}

fn name(result: io::Result<usize>) -> String {
    match result {
        Ok(_) => "sent".to_owned(),
        Err(error) => error
            .raw_os_error()
            .map_or_else(|| error.to_string(), errno_name),
    }
}
