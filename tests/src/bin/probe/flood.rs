//! One attempt, many times, as fast as it goes.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::probe::{Ending, Flood};

use crate::{
    attempt::{Attempt, errno_name},
    connect::{HELLO, udp_socket},
};

pub(crate) fn run(attempt: &Attempt, text: &str, count: u64, limit: Duration) -> Result<Flood> {
    let once: Box<dyn Fn() -> String> = match attempt {
        // One socket for all: it is the sending that is to be many times, and no answer is waited
        // for.
        Attempt::Udp(address) => {
            let (socket, address) = (udp_socket(*address).context("open a socket")?, *address);
            Box::new(move || name(socket.send_to(HELLO, address)))
        }
        Attempt::UdpConnected(address) => {
            let (socket, address) = (udp_socket(*address).context("open a socket")?, *address);
            Box::new(move || name(socket.connect(address).and_then(|()| socket.send(HELLO))))
        }
        attempt => Box::new(move || {
            let outcome = attempt.make(text, limit);
            outcome.errno_name.unwrap_or_else(|| {
                let ending = match outcome.ending {
                    Ending::Reached => "reached",
                    Ending::Sent => "sent",
                    Ending::Timeout => "timeout",
                    Ending::Failed => "failed",
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

fn name(result: io::Result<usize>) -> String {
    match result {
        Ok(_) => "sent".to_owned(),
        Err(error) => error
            .raw_os_error()
            .map_or_else(|| error.to_string(), errno_name),
    }
}
