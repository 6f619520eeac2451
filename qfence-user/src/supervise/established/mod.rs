//! Ends established connections that a new policy denies.
//!
//! The hooks judge calls, and for TCP the packet that opens a connection. A new policy therefore does not affect an
//! established connection. So after a policy is published, every connection that the fence opened is checked again, and
//! ended if the policy denies it (one to a listener of the fence's own, unless a rule for `self` covers it): the peer gets a
//! reset, and the owner ECONNABORTED (`tcp_abort` in net/ipv4/tcp.c, `udp_abort` in net/ipv4/udp.c). Connections that a
//! listener of the fence accepted are kept.
//!
//! A connection that is opened between the publication and the search is harmless: the first packet of TCP, and every
//! datagram, passes the egress hook, which uses the new policy from then on. For UDP, ending a connection only informs
//! its owner. The same is true of TCP, because `set` makes the egress hook judge every packet from then on
//! ([`qfence_common::Change`]). The kernel cannot end UDP-Lite, ping and raw sockets; their owners get an error for the
//! next datagram.
//!
//! An MPTCP connection consists of subflows, which are TCP connections. The subflows are ended; the kernel cannot end
//! the connection as a whole (`mptcp_diag_handler` in net/mptcp/mptcp_diag.c). A new subflow is judged like any other
//! connection. Packets of the fence on a subflow that the peer opened are dropped ([`qfence_common::Change`]). The
//! owner is informed only after net.mptcp.close_timeout, a minute.
//!
//! Before the kernel ends a connection, it waits for the lock of its socket. Only the process that has the lock can end
//! this wait. A process of the fence can keep the lock as long as it likes: it receives into memory that another
//! process has to fill (FUSE, userfaultfd). So a helper process ends the connections (`helper.rs`, `worker.rs`), in
//! several threads, so that a blocked one does not delay the others (`pool.rs`). After ten seconds in which no
//! connection has ended, the remaining ones are reported, and the helper is abandoned; it ends them when their sockets
//! are unlocked. Before Linux 6.9, sock_diag handles only one request at a time on the whole host (`sock_diag_mutex` in
//! net/core/sock_diag.c), so all other users wait meanwhile.
//!
//! Not found are sockets in a network namespace that neither the caller nor a process of the fence is in, and MPTCP
//! subflows that the peer opened to a connection of the fence. Such a subflow was accepted by a listener, so it has no
//! owner; for this, the fence has to listen by MPTCP on the local port of its connection. The subflow remains when the
//! fence's own subflows are ended, and is not reported. The packet layer drops the fence's packets on both. If the peer
//! is the host itself, the subflow cannot be established.

mod diag;
mod helper;
mod message;
mod namespaces;
mod origin;
mod pool;
mod search;
mod worker;

use std::{
    collections::HashMap, fmt, io, mem, net::SocketAddr, os::fd::BorrowedFd, path::Path,
    thread::sleep, time::Duration,
};

use anyhow::{Result, anyhow, bail};
pub use helper::Dismissed;
use helper::Helper;
use message::{Answer, Request, Which};
use nix::errno::Errno;
use qfence_common::Protocol;
pub use search::Candidate;
use search::{Look, Scope, Search};
pub use worker::serve;

use crate::{
    fence::{cgroup::Cgroup, guard::fail_with_all},
    policy::protocol::protocol_name,
};

/// The pause before the last round, so that a call which the previous policy allowed can appear in the kernel's table
/// of connections. Between the hook and the table, the kernel chooses a route and a port.
const PAUSE: Duration = Duration::from_millis(50);

/// The maximum number of rounds. Usually there are two, and more if something new is found.
const ROUNDS: usize = 8;

/// The most threads of a helper process that ends what a new policy denies, and of one that ends connections whose first
/// packet was refused. A connection blocks a thread as long as a process of the fence keeps its socket locked. The former is
/// started by the administrator, the latter by what the fence does.
const THREADS: usize = 1024;
const FEW_THREADS: usize = 8;

/// How long the kernel may take to report whether it can end connections.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that a fence has opened: TCP, or a connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol. A subflow of MPTCP is TCP.
    pub protocol: Protocol,
    /// The address in the fence. v4-mapped addresses are shown as IPv4.
    pub local: SocketAddr,
    /// The address of the peer. v4-mapped addresses are shown as IPv4.
    pub remote: SocketAddr,
    /// Whether a rule for the set `self` let it through, to a listener of the fence's own.
    pub by_self: bool,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = protocol_name(self.protocol.0);
        write!(f, "{protocol} {} to {}", self.local, self.remote)
    }
}

/// The result of ending connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The connections that were ended, in that order.
    pub connections: Vec<Connection>,
    /// The connections that could not be ended, because a process keeps their sockets locked.
    pub standing: Vec<Connection>,
}

impl Ended {
    /// The number of ended TCP connections.
    #[must_use]
    pub fn tcp(&self) -> usize {
        let is_tcp = |connection: &&Connection| connection.protocol == Protocol::TCP;
        self.connections.iter().filter(is_tcp).count()
    }

    /// The number of ended connected UDP sockets.
    #[must_use]
    pub fn udp(&self) -> usize {
        self.connections.len() - self.tcp()
    }
}

/// Checks whether this kernel can end connections (`inet_diag_cmd_exact` in net/ipv4/inet_diag.c). `program` is this
/// executable, which is run as a helper.
///
/// # Errors
/// If it cannot, with the reason.
pub fn check(program: &Path) -> Result<()> {
    let mut helper = Helper::start(program, None)?;
    helper.ask(&Request::Check)?;
    match helper.answer(PATIENCE)? {
        Some(Answer::Checked(Some(errno))) if !errno_is_missing(errno) => Err(refused(errno)),
        Some(_) => Ok(()),
        None => bail!(
            "the kernel cannot end connections now: before Linux 6.9 it first waits for the socket of another connection, which \
             a process keeps locked; look for processes in state D"
        ),
    }
}

/// Ends every connection that is `denied` and that the fence of a cgroup has opened, in the network namespaces of the
/// caller and of the fence's processes. Blocks for a few times 50 ms. If processes of the fence keep their sockets
/// locked, it blocks for ten seconds, and for a minute at most. `program` is this executable, which is run as a helper.
///
/// `owners` is the fence's storage of the owner of each socket ([`qfence_common::abi::OWNERS_MAP`]). It distinguishes
/// opened connections from accepted ones. UDP has no such difference: a socket that is connected to a peer that sent
/// first is checked like any other.
///
/// # Errors
/// If connections cannot be listed, or the kernel refuses to end a denied one. All others are ended anyway. Connections
/// that remain because their sockets are locked are not an error, but in [`Ended::standing`].
pub fn end(
    program: &Path,
    cgroup: &Cgroup,
    owners: BorrowedFd<'_>,
    denied: impl Fn(&Connection) -> bool,
) -> Result<Ended> {
    let mut helper = Helper::start(program, Some(owners))?;
    let scope = Scope {
        which: Which::All,
        threads: THREADS,
    };
    let denied = |candidate: &Candidate<'_>| denied(&candidate.connection);
    run(Search::new(cgroup, &mut helper, scope, denied)).0
}

/// Shows `judge` every TCP connection of a socket that was made in a cgroup and has no owner, some of them more than once,
/// and ends those for which it returns true. Otherwise like [`end`].
///
/// # Errors
/// Like [`end`].
pub fn end_unowned(
    program: &Path,
    cgroup: &Cgroup,
    owners: BorrowedFd<'_>,
    judge: impl FnMut(&Candidate<'_>) -> bool,
) -> Result<Ended> {
    let mut helper = Helper::start(program, Some(owners))?;
    let scope = Scope {
        which: Which::Unowned,
        threads: THREADS,
    };
    run(Search::new(cgroup, &mut helper, scope, judge)).0
}

/// What is left of a search for connections that are being opened.
#[derive(Debug)]
pub struct Opening {
    /// The helper process. As long as it has not ended, it may wait for locked sockets.
    pub helper: Option<Dismissed>,
    /// How long listing connections took.
    pub listing: Duration,
}

/// Ends every TCP connection that is `denied` and is being opened, like [`end`], with few threads.
///
/// # Errors
/// Like [`end`]. The first result is valid nevertheless, unless the helper process could not be started.
pub fn end_opening(
    program: &Path,
    cgroup: &Cgroup,
    owners: BorrowedFd<'_>,
    denied: impl Fn(&Connection) -> bool,
) -> (Option<Opening>, Result<Ended>) {
    let mut helper = match Helper::start(program, Some(owners)) {
        Ok(helper) => helper,
        Err(error) => return (None, Err(error)),
    };
    let scope = Scope {
        which: Which::Opening,
        threads: FEW_THREADS,
    };
    let denied = |candidate: &Candidate<'_>| denied(&candidate.connection);
    let (ended, listing) = run(Search::new(cgroup, &mut helper, scope, denied));
    let helper = helper.dismiss();
    (Some(Opening { helper, listing }), ended)
}

/// Runs a search. Returns its result, and how long listing connections took.
fn run<D: FnMut(&Candidate<'_>) -> bool>(mut search: Search<'_, D>) -> (Result<Ended>, Duration) {
    let ended = in_rounds(&mut search);
    (ended, search.listing)
}

fn in_rounds<D: FnMut(&Candidate<'_>) -> bool>(search: &mut Search<'_, D>) -> Result<Ended> {
    let mut missed_before = HashMap::new();
    let mut unopened = 0;
    for round in 0..ROUNDS {
        let settled = search.settled.len();
        let look = match search.look() {
            Ok(look) => look,
            // The kernel may not answer because of the connections that it cannot end.
            Err(error) => {
                search.give_up();
                if search.ended.standing.is_empty() {
                    return Err(error);
                }
                return Ok(mem::take(&mut search.ended));
            }
        };
        fail_with_all(mem::take(&mut search.errors))?;
        let has_found = search.settled.len() > settled;
        let Look { missed, .. } = look;
        unopened = look.unopened;
        if !has_found && unopened == 0 && round > 0 {
            if missed.is_empty() {
                return Ok(mem::take(&mut search.ended));
            }
            if let Some((_, hidden)) = missed
                .iter()
                .find(|(id, _)| missed_before.contains_key(*id))
            {
                bail!("cannot end {hidden}: the kernel finds another socket instead");
            }
        }
        // A connection that was hidden by another one is visible immediately. Otherwise, new connections need time to
        // appear.
        if !has_found || missed.is_empty() {
            sleep(PAUSE);
        }
        missed_before = missed;
    }
    if unopened > 0 {
        bail!(
            "{unopened} network namespaces were not searched, because processes of the fence keep moving between them"
        );
    }
    let connections = &search.ended.connections;
    let last = connections.last().map(Connection::to_string);
    bail!(
        "the fence keeps opening connections that the policy denies: {} were ended, the last one {}",
        connections.len(),
        last.unwrap_or_default()
    )
}

fn errno_is_missing(errno: i32) -> bool {
    errno == Errno::ENOENT as i32
}

/// The reason why the kernel does not end a connection.
fn refused(errno: i32) -> anyhow::Error {
    if errno == Errno::EOPNOTSUPP as i32 {
        return anyhow!(
            "this kernel cannot end connections (it was built without CONFIG_INET_DIAG_DESTROY)"
        );
    }
    io::Error::from_raw_os_error(errno).into()
}
