//! A NAT64 translator of the private internet, for one port: it passes datagrams and connections for an IPv6 address on
//! to the IPv4 address in it, and the answers back. `verify` and the tests use it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use ipnet::Ipv6Net;

use super::{netns::Netns, wire::Wire};
use crate::policy::nat64;

/// How long a thread waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// How long an IPv4 host may take to answer.
const PATIENCE: Duration = Duration::from_millis(250);

/// A running translator. It ends when dropped.
#[derive(Debug)]
pub struct Translator {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Translator {
    /// Translates the addresses of `targets` under `prefix` in a namespace, for a port of UDP and TCP.
    ///
    /// # Errors
    /// If an address, a socket or a thread cannot be made.
    pub fn start(
        netns: &impl AsRef<Netns>,
        prefix: Ipv6Net,
        targets: &[Ipv4Addr],
        port: u16,
    ) -> Result<Self> {
        let netns = netns.as_ref();
        let spelled = targets.iter().map(|target| {
            let spelled = nat64::spell(prefix, *target).context("no prefix of a translator")?;
            Ok((spelled, *target))
        });
        let spelled = spelled.collect::<Result<Vec<_>>>()?;
        // A socket can be bound to an address of a device only.
        let addresses: Vec<_> = spelled
            .iter()
            .map(|(address, _)| (IpAddr::V6(*address), 128))
            .collect();
        Wire::within(netns, async |wire| {
            wire.assign("lo", &addresses).await?;
            wire.await_local(&addresses).await
        })?;
        let mut new = Self {
            ends: Arc::default(),
            threads: Vec::new(),
        };
        for (from, target) in spelled {
            new.translate(netns, from, SocketAddr::new(target.into(), port))?;
        }
        Ok(new)
    }

    fn translate(&mut self, netns: &Netns, from: Ipv6Addr, to: SocketAddr) -> Result<()> {
        let here = SocketAddr::new(from.into(), to.port());
        let context = || format!("cannot translate for {here}");
        // Threads that a thread starts are in its namespace.
        let threads = netns.run(|| {
            let udp = UdpSocket::bind(here).with_context(context)?;
            let tcp = TcpListener::bind(here).with_context(context)?;
            udp.set_read_timeout(Some(LOOK))?;
            tcp.set_nonblocking(true)?;
            let [ends, ends_too] = [&self.ends, &self.ends].map(Arc::clone);
            Ok([
                thread::spawn(move || datagrams(&udp, to, &ends)),
                thread::spawn(move || connections(&tcp, to, &ends_too)),
            ])
        })?;
        self.threads.extend(threads);
        Ok(())
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported already.
            let _ = thread.join();
        }
    }
}

fn datagrams(here: &UdpSocket, to: SocketAddr, ends: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !ends.load(Ordering::Relaxed) {
        let Ok((length, client)) = here.recv_from(&mut bytes) else {
            continue;
        };
        let answered = ask(to, &bytes[..length]);
        if let Some(answer) = answered {
            // Without an answer the client sees a timeout.
            let _ = here.send_to(&answer, client);
        }
    }
}

/// Passes a datagram on, and returns the answer.
fn ask(to: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.send_to(bytes, to).ok()?;
    let mut answer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

fn connections(here: &TcpListener, to: SocketAddr, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        match here.accept() {
            Ok((client, _)) => {
                // A connection that fails ends without an answer.
                let _ = pass_on(client, to);
            }
            Err(_) => thread::sleep(LOOK / 10),
        }
    }
}

/// Passes what a server sends on to a client.
fn pass_on(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect_timeout(&to, PATIENCE)?;
    server.set_read_timeout(Some(PATIENCE))?;
    client.set_nonblocking(false)?;
    let mut bytes = [0; 4096];
    loop {
        match server.read(&mut bytes)? {
            0 => return client.shutdown(Shutdown::Write),
            length => client.write_all(&bytes[..length])?,
        }
    }
}
