//! Services that greet each peer and record the traffic that arrives. A test of a refusal asserts that the probe
//! failed, and also that nothing arrived.

mod serve;
mod socket;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::netns::Netns;

/// One connection or datagram that reached a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The address it came from.
    pub peer: SocketAddr,
    /// The address it was sent to.
    pub local: SocketAddr,
    /// A datagram's content or an HTTP request; empty for plain TCP.
    pub bytes: Vec<u8>,
}

/// A protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// A TCP service that sends `hello from ADDRESS:PORT` and closes the connection.
    Tcp,
    /// A UDP service that answers every datagram with `hello from ADDRESS:PORT`.
    Udp,
    /// A TCP service that answers every HTTP request with a page that contains the same greeting.
    Http,
}

/// A service on one socket, with its own thread. It ends when dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    control: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// A TCP service that sends `hello from ADDRESS:PORT` and closes the connection. The unspecified address means all
    /// addresses of its family; port 0 means any free port.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn tcp(netns: &impl AsRef<Netns>, address: SocketAddr) -> Result<Self> {
        Self::start(
            Service::Tcp,
            address,
            netns.as_ref().run(|| socket::tcp(address)),
        )
    }

    /// A UDP service that answers every datagram with `hello from ADDRESS:PORT`. On an unspecified address it also
    /// receives broadcasts.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn udp(netns: &impl AsRef<Netns>, address: SocketAddr) -> Result<Self> {
        Self::start(
            Service::Udp,
            address,
            netns.as_ref().run(|| socket::udp(address)),
        )
    }

    /// Like [`Self::tcp`], but also accepts MPTCP.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn mptcp(netns: &impl AsRef<Netns>, address: SocketAddr) -> Result<Self> {
        Self::start(
            Service::Tcp,
            address,
            netns.as_ref().run(|| socket::mptcp(address)),
        )
    }

    /// Like [`Self::udp`], for UDP-Lite.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn udplite(netns: &impl AsRef<Netns>, address: SocketAddr) -> Result<Self> {
        Self::start(
            Service::Udp,
            address,
            netns.as_ref().run(|| socket::udplite(address)),
        )
    }

    /// Like [`Self::udp`], for the members of a multicast group on a device.
    ///
    /// # Errors
    /// If there is no such device, or a socket or thread cannot be made.
    pub fn multicast(netns: &impl AsRef<Netns>, group: SocketAddr, device: &str) -> Result<Self> {
        Self::member(netns, group, group.ip(), device)
    }

    /// Like [`Self::udp`], on a socket that is a member of a multicast group on a device.
    ///
    /// # Errors
    /// If there is no such device, or a socket or thread cannot be made.
    pub fn member(
        netns: &impl AsRef<Netns>,
        address: SocketAddr,
        group: IpAddr,
        device: &str,
    ) -> Result<Self> {
        let socket = netns
            .as_ref()
            .run(|| socket::member(address, group, device));
        Self::start(Service::Udp, address, socket)
    }

    /// A web server with one page that contains `hello from ADDRESS:PORT`.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn http(netns: &impl AsRef<Netns>, address: SocketAddr) -> Result<Self> {
        Self::start(
            Service::Http,
            address,
            netns.as_ref().run(|| socket::tcp(address)),
        )
    }

    fn start(service: Service, address: SocketAddr, socket: Result<OwnedFd>) -> Result<Self> {
        let socket = socket.with_context(|| format!("listen ({service:?}) on {address}"))?;
        let address = socket::local_address(&socket)?;
        let (control, remote) = UnixStream::pair().context("make a control socket")?;
        control.set_read_timeout(Some(Duration::from_secs(10)))?;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&arrivals);
        let thread = std::thread::Builder::new()
            .name(format!("{service:?} {address}"))
            .spawn(move || serve::run(service, &socket, remote, &log))?;
        Ok(Self {
            address,
            arrivals,
            control,
            thread: Some(thread),
        })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All arrivals so far, including those that are still in the socket's queue.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        // The service answers as soon as its socket's queue is empty. If it does not answer, it has ended, and the log
        // is complete.
        let mut control = &self.control;
        let _ = control
            .write_all(&[0])
            .and_then(|()| control.read_exact(&mut [0]));
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Several listeners as one.
#[derive(Debug)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// TCP and UDP on every IPv4 and IPv6 address of the namespace.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn everywhere(netns: &impl AsRef<Netns>, port: u16) -> Result<Self> {
        let mut listeners = Vec::new();
        for address in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let address = SocketAddr::new(address, port);
            listeners.push(Listener::tcp(netns, address)?);
            listeners.push(Listener::udp(netns, address)?);
        }
        Ok(Self(listeners))
    }

    /// TCP, MPTCP, UDP and UDP-Lite on every IPv4 and IPv6 address of the namespace.
    ///
    /// # Errors
    /// If a socket or thread cannot be made.
    pub fn of_all_kinds(netns: &impl AsRef<Netns>, port: u16) -> Result<Self> {
        let mut listeners = Vec::new();
        for address in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let address = SocketAddr::new(address, port);
            listeners.push(Listener::mptcp(netns, address)?);
            listeners.push(Listener::udp(netns, address)?);
            listeners.push(Listener::udplite(netns, address)?);
        }
        Ok(Self(listeners))
    }

    /// The single listeners.
    #[must_use]
    pub fn into_inner(self) -> Vec<Listener> {
        self.0
    }

    /// All arrivals so far at all of them.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.0.iter().flat_map(Listener::arrivals).collect()
    }
}

impl From<Vec<Listener>> for Listeners {
    fn from(listeners: Vec<Listener>) -> Self {
        Self(listeners)
    }
}
