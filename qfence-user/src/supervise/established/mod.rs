//! Ends connections that are established already when a policy comes into force that denies them.
//!
//! The hooks judge calls, and of TCP the packet that opens a connection: what stands, stands. So
//! after a policy is published, every connection that the fence opened is looked at again, and ended
//! if need be: the other end gets a reset, and the owner ECONNABORTED (`tcp_abort` in net/ipv4/tcp.c,
//! `udp_abort` in net/ipv4/udp.c). A connection that came in to a listener of the fence stays.
//!
//! What slips through between the publication and the search does no harm: the first packet of TCP,
//! and every datagram, passes the egress hook, which judges by the new policy from then on. So for
//! UDP this is a courtesy: its owner is told. So it is for TCP, of which `set` has every packet judged
//! from then on ([`qfence_common::Change`]). UDP-Lite, which the kernel cannot end, ping and raw
//! sockets are told by their next datagram.
//!
//! Of MPTCP the ways to the peer are ended, which are connections of TCP; the kernel has no end for the
//! whole (`mptcp_diag_handler` in net/mptcp/mptcp_diag.c). A new way is judged like any other, and what is sent by
//! one that the peer opened is dropped ([`qfence_common::Change`]). The owner is not told before
//! net.mptcp.close_timeout, a minute.
//!
//! The kernel waits for the lock of a socket before it ends its connection, and nothing ends that wait but whoever
//! has the lock: a process of the fence that receives into memory which somebody else has to fill (FUSE,
//! userfaultfd) keeps it for as long as it likes. So connections are ended by a helper process (`helper.rs`,
//! `worker.rs`), in threads of which one that waits keeps no other from its work (`pool.rs`). What has not ended when
//! ten seconds have passed without an end is said to stand, and the helper is left behind: its connections
//! end when their sockets are let go. Before Linux 6.9 sock_diag does one thing at a time on all of the host
//! (`sock_diag_mutex` in net/core/sock_diag.c), so that all others then wait with it.
//!
//! What is not found: sockets in a network namespace that no process of the fence is in any more, nor
//! the caller; and a way of MPTCP that the peer opened to a connection from inside. Such a way came in to a listener
//! (the fence has to listen by MPTCP on the port that its connection has), so that it has no owner. It stands when the
//! fence's own ways are ended and is not named. The packet layer drops what the fence sends by either. Where
//! the peer is the host itself, the way does not come to be.

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
use helper::Helper;
use message::{Answer, Request};
use nix::errno::Errno;
use qfence_common::Protocol;
use search::{Look, Search};
pub use worker::serve;

use crate::{
    fence::{cgroup::Cgroup, guard::fail_with_all},
    policy::protocol::protocol_name,
};

/// How long a call that the former policy allowed gets to show up before the last look: between the
/// hook and the kernel's table of connections lies the choice of a route and a port.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked at most. Two is the rule, and more if something new was found.
const ROUNDS: usize = 8;

/// How long the kernel gets to say whether it ends connections.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// All of them, in the order in which they ended.
    pub connections: Vec<Connection>,
    /// Those that were to be ended and stand: a process keeps their sockets.
    pub standing: Vec<Connection>,
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

/// Makes sure that this kernel can end connections (`inet_diag_cmd_exact` in net/ipv4/inet_diag.c). `program` is
/// this one, to be run as a helper.
///
/// # Errors
/// If it cannot, and why.
pub fn check(program: &Path) -> Result<()> {
    let mut helper = Helper::start(program, None)?;
    helper.ask(&Request::Check)?;
    match helper.answer(PATIENCE)? {
        Some(Answer::Checked(Some(errno))) if !errno_is_missing(errno) => Err(refused(errno)),
        Some(_) => Ok(()),
        None => bail!(
            "the kernel ends no connection now: before Linux 6.9 it waits for the socket of another first, which \
             a process keeps; look for processes in state D"
        ),
    }
}

/// Ends every connection that the fence of a cgroup has opened and that is `denied`, in the network
/// namespace of the caller and in those of the fence's processes. Blocks for a twentieth of a second,
/// or a few of them; where processes of the fence keep their sockets for ten seconds, or a minute at most. `program`
/// is this one, to be run as a helper.
///
/// `owners` is the fence's storage of who made each socket ([`qfence_common::abi::OWNERS_MAP`]), by
/// which a connection that was opened is told from one that came in. UDP knows no such difference: a
/// socket that is connected to a peer which spoke first is asked about like any other.
///
/// # Errors
/// If connections cannot be listed, or the kernel refuses to end one that is denied. Those that could be ended
/// are, all the same. That some stand because their sockets are kept is no error here: [`Ended::standing`].
pub fn end(
    program: &Path,
    cgroup: &Cgroup,
    owners: BorrowedFd<'_>,
    denied: impl Fn(&Connection) -> bool,
) -> Result<Ended> {
    let helper = Helper::start(program, Some(owners))?;
    let mut search = Search::new(cgroup, helper, denied);
    let mut missed_before = HashMap::new();
    let mut unopened = 0;
    for round in 0..ROUNDS {
        let settled = search.settled.len();
        let look = match search.look() {
            Ok(look) => look,
            // What the kernel could not be brought to end explains why it does not answer.
            Err(error) => {
                search.give_up();
                if search.ended.standing.is_empty() {
                    return Err(error);
                }
                return Ok(search.ended);
            }
        };
        fail_with_all(mem::take(&mut search.errors))?;
        let has_found = search.settled.len() > settled;
        let Look { missed, .. } = look;
        unopened = look.unopened;
        if !has_found && unopened == 0 && round > 0 {
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
    if unopened > 0 {
        bail!(
            "{unopened} network namespaces were not looked at: processes of the fence keep moving between them"
        );
    }
    let connections = search.ended.connections;
    let last = connections.last().map(Connection::to_string);
    bail!(
        "connections that the policy denies keep coming: {} were ended, the last of them {}",
        connections.len(),
        last.unwrap_or_default()
    )
}

fn errno_is_missing(errno: i32) -> bool {
    errno == Errno::ENOENT as i32
}

/// Why the kernel does not end a connection.
fn refused(errno: i32) -> anyhow::Error {
    if errno == Errno::EOPNOTSUPP as i32 {
        return anyhow!(
            "this kernel cannot end connections (it is built without CONFIG_INET_DIAG_DESTROY)"
        );
    }
    io::Error::from_raw_os_error(errno).into()
}
