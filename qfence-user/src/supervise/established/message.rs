//! What the helper process is asked, and what it answers: a line of JSON each.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// What it is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Whether this kernel can end connections.
    Check,
    /// What the fence of these cgroups has opened in a network namespace.
    Look {
        /// The descriptor of the namespace's file, in the process that asks.
        namespace: i32,
        /// The ids of the cgroups.
        cgroups: BTreeSet<u64>,
    },
    /// To end connections that it has found in the namespace that it looked at last, by their numbers.
    End(Vec<u64>),
}

/// What it answers. [`Answer::Ended`] comes at any time, and each of the others to its request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To [`Request::Check`]: with what the kernel refused it, if anything.
    Checked(Option<i32>),
    /// To [`Request::Look`].
    Found(Vec<Seen>),
    /// To any request: why there is no other answer.
    Failed(String),
    /// What came of ending a connection.
    Ended {
        /// The connection.
        number: u64,
        /// With what the kernel failed, if it did.
        errno: Option<i32>,
    },
}

/// A connection that the fence has opened.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// By what it can be ended; no other has it.
    pub(super) number: u64,
    /// What the kernel calls its socket, in its namespace.
    pub(super) cookie: [u8; 8],
    /// The number of its protocol.
    pub(super) protocol: u32,
    /// The end in the fence.
    pub(super) local: SocketAddr,
    /// The other end.
    pub(super) remote: SocketAddr,
}
