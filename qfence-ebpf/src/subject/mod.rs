//! Reads the subject of a hook: the call, the packet, the socket, and the process behind them.

pub(crate) mod author;
mod cast;
pub(crate) mod destination;
pub(crate) mod frame;
pub(crate) mod left;
pub(crate) mod listener;
pub(crate) mod netns;
pub(crate) mod owner;
pub(crate) mod shown;
pub(crate) mod skb;
pub(crate) mod socket;
pub(crate) mod unix;
pub(crate) mod unix_socket;
