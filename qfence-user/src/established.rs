//! Ends connections that are established already when a policy comes into force that denies them.
//!
//! The hooks judge calls, and of TCP the packet that opens a connection: what stands, stands. So
//! after a policy is published, every connection that the fence opened is looked at again, and ended
//! if need be: the other end gets a reset, and the owner ECONNABORTED (`tcp_abort` in net/ipv4/tcp.c,
//! `udp_abort` in net/ipv4/udp.c). A connection that came in to a listener of the fence stays.
//!
//! What slips through between the publication and the search does no harm: the first packet of TCP,
//! and every datagram, passes the egress hook, which judges by the new policy from then on. So for
//! UDP this is a courtesy: its owner is told. UDP-Lite, which the kernel cannot end, ping and raw
//! sockets are told by their next datagram.
//!
//! Of MPTCP the ways to the peer are ended, which are connections of TCP; the kernel has no end for the
//! whole (`mptcp_diag_handler` in net/mptcp/mptcp_diag.c). Nothing is carried any more, and a new way
//! is judged like any other, but the owner is not told before net.mptcp.close_timeout, a minute.
//!
//! What is not found: sockets in a network namespace that no process of the fence is in any more, nor
//! the caller; and a way of MPTCP that the peer opened to a connection from inside, if the fence's own
//! way has ended.

mod diag;
mod namespaces;
mod origin;

use std::{
    collections::{HashMap, HashSet},
    fmt, io, mem,
    net::SocketAddr,
    os::fd::BorrowedFd,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use diag::{Diag, Found, KINDS};
use netlink_packet_sock_diag::inet::SocketId;
use nix::errno::Errno;
use qfence_common::Protocol;

use crate::{cgroup::Cgroup, fence::fail_with_all, what::protocol_name};

/// How long a call that the former policy allowed gets to show up before the last look: between the
/// hook and the kernel's table of connections lies the choice of a route and a port.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked at most. Two is the rule, and more if something new was found.
const ROUNDS: usize = 8;

/// A connection that a fence has opened: of TCP, or a UDP socket that is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol. What MPTCP opens is TCP.
    pub protocol: Protocol,
    /// The end in the fence; v4-mapped addresses are given as IPv4.
    pub local: SocketAddr,
    /// The other end; v4-mapped addresses are given as IPv4.
    pub remote: SocketAddr,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = protocol_name(self.protocol.0);
        write!(f, "{protocol} {} to {}", self.local, self.remote)
    }
}

/// The connections that were ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// All of them, in the order in which they were found.
    pub connections: Vec<Connection>,
}

impl Ended {
    /// How many of them were of TCP.
    #[must_use]
    pub fn tcp(&self) -> usize {
        let is_tcp = |connection: &&Connection| connection.protocol == Protocol::TCP;
        self.connections.iter().filter(is_tcp).count()
    }

    /// How many of them were connected sockets of UDP.
    #[must_use]
    pub fn udp(&self) -> usize {
        self.connections.len() - self.tcp()
    }
}

/// Makes sure that this kernel can end connections (`inet_diag_cmd_exact` in net/ipv4/inet_diag.c).
///
/// # Errors
/// If it cannot, and why.
pub fn check() -> Result<()> {
    let diag = Diag::open()?;
    // There is no connection from nowhere to nowhere; a kernel that can end one says so.
    match diag.destroy(Protocol::TCP, &SocketId::new_v4()) {
        Err(error) if !is_missing(&error) => Err(refused(error)),
        _ => Ok(()),
    }
}

/// Ends every connection that the fence of a cgroup has opened and that is `denied`, in the network
/// namespace of the caller and in those of the fence's processes. Blocks for a twentieth of a second,
/// or a few of them.
///
/// `owners` is the fence's storage of who made each socket ([`qfence_common::abi::OWNERS_MAP`]), by
/// which a connection that was opened is told from one that came in. UDP knows no such difference: a
/// socket that is connected to a peer which spoke first is asked about like any other.
///
/// # Errors
/// If connections cannot be listed, or one that is denied cannot be ended. Those that could be ended
/// are, all the same.
pub fn end(
    cgroup: &Cgroup,
    owners: BorrowedFd<'_>,
    denied: impl Fn(&Connection) -> bool,
) -> Result<Ended> {
    let mut search = Search {
        cgroup,
        owners,
        denied,
        settled: HashSet::new(),
        ended: Ended::default(),
        errors: Vec::new(),
    };
    let mut missed_before = HashMap::new();
    for round in 0..ROUNDS {
        let settled = search.settled.len();
        let missed = search.look()?;
        fail_with_all(mem::take(&mut search.errors))?;
        let has_found = search.settled.len() > settled;
        if !has_found && round > 0 {
            if missed.is_empty() {
                return Ok(search.ended);
            }
            if let Some((_, hidden)) = missed
                .iter()
                .find(|(id, _)| missed_before.contains_key(*id))
            {
                bail!("cannot end {hidden}: the kernel takes another socket for it");
            }
        }
        // One that hid behind another shows at once; anything else takes its time.
        if !has_found || missed.is_empty() {
            sleep(PAUSE);
        }
        missed_before = missed;
    }
    let connections = search.ended.connections;
    let last = connections.last().map(Connection::to_string);
    bail!(
        "connections that the policy denies keep coming: {} were ended, the last of them {}",
        connections.len(),
        last.unwrap_or_default()
    )
}

/// A socket: its namespace, and the cookie it has there.
type Id = (u64, [u8; 8]);

/// One search for connections, in several rounds.
struct Search<'a, D> {
    cgroup: &'a Cgroup,
    owners: BorrowedFd<'a>,
    denied: D,
    /// What was ended, or cannot be.
    settled: HashSet<Id>,
    ended: Ended,
    errors: Vec<anyhow::Error>,
}

impl<D: Fn(&Connection) -> bool> Search<'_, D> {
    /// Looks everywhere once; returns what was there, and was not found when it was to be ended.
    fn look(&mut self) -> Result<HashMap<Id, Connection>> {
        let cgroups = self.cgroup.ids().with_context(|| {
            let directory = self.cgroup.directory().display();
            format!("cannot list the cgroups of {directory}")
        })?;
        let mut missed = HashMap::new();
        for (namespace, diag) in namespaces::of(self.cgroup, &mut self.errors) {
            for (protocol, family) in KINDS {
                let all = match diag.dump(protocol, family, self.owners) {
                    Ok(all) => all,
                    Err(error) => {
                        self.errors.push(error);
                        break;
                    }
                };
                for found in &all {
                    let id = (namespace, found.cookie());
                    if !origin::is_opened(found, &cgroups)
                        || !(self.denied)(&found.connection)
                        || self.settled.contains(&id)
                    {
                        continue;
                    }
                    if self.end(&diag, found) {
                        self.settled.insert(id);
                    } else {
                        missed.insert(id, found.connection);
                    }
                }
            }
        }
        Ok(missed)
    }

    /// Ends a connection; whether the kernel found it.
    fn end(&mut self, diag: &Diag, found: &Found) -> bool {
        let connection = found.connection;
        match diag.destroy(connection.protocol, found.id()) {
            Ok(()) => self.ended.connections.push(connection),
            // It ended by itself, or the kernel took another for it, of the same two ends.
            Err(error) if is_missing(&error) => return false,
            Err(error) => {
                let error = refused(error).context(format!("cannot end {connection}"));
                self.errors.push(error);
            }
        }
        true
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOENT as i32)
}

/// Why the kernel does not end a connection.
fn refused(error: io::Error) -> anyhow::Error {
    if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) {
        return anyhow!(
            "this kernel cannot end connections (it is built without CONFIG_INET_DIAG_DESTROY)"
        );
    }
    error.into()
}
