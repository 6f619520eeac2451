//! The requests to the helper process, and its answers: one line of JSON each.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Asks whether this kernel can end connections.
    Check,
    /// Asks for the connections that the fence with these cgroups has opened in a network namespace.
    Look {
        /// The descriptor of the namespace's file, in the requesting process.
        namespace: i32,
        /// The ids of the cgroups.
        cgroups: BTreeSet<u64>,
        /// Which of them are asked for.
        which: Which,
    },
    /// Asks to end connections.
    End {
        /// Their numbers. They must be from the answer to the latest [`Request::Look`].
        numbers: Vec<u64>,
        /// The most threads that the helper may have. Each connection whose socket is locked blocks one.
        threads: usize,
    },
}

/// The connections that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Which {
    /// All that the fence has opened.
    All,
    /// Only those of TCP that are being opened.
    Opening,
    /// Only those of TCP whose socket has no owner. The fence may have opened them before it was attached.
    Unowned,
}

/// An answer. [`Answer::Ended`] comes at any time, each of the others after its request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The answer to [`Request::Check`], with the error if the kernel cannot end connections.
    Checked(Option<i32>),
    /// The answer to [`Request::Look`].
    Found(Vec<Seen>),
    /// The answer to any request that has failed: the reason.
    Failed(String),
    /// The result of ending a connection.
    Ended {
        /// The number of the connection.
        number: u64,
        /// The error, if it could not be ended.
        errno: Option<i32>,
    },
}

/// A connection that the fence has opened.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Its number in requests. No other connection has this number.
    pub(super) number: u64,
    /// The cookie of its socket, in its namespace.
    pub(super) cookie: [u8; 8],
    /// The number of its protocol.
    pub(super) protocol: u32,
    /// The address in the fence.
    pub(super) local: SocketAddr,
    /// The address of the peer.
    pub(super) remote: SocketAddr,
    /// Whether a rule for the set `self` let it through.
    pub(super) by_self: bool,
    /// The index of the network device to which its socket is bound; 0 if it is bound to none.
    pub(super) device: u32,
}
