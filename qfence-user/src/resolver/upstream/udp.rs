//! Asks a nameserver by UDP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{Failure, query::Query};
use crate::resolver::found::{Found, Unusable};

/// The longest answer that is read. Nameservers send no longer one than they are allowed.
const LONGEST: usize = 4096;

/// Sends a query from a port that the kernel chooses, and waits for its answer. Datagrams of others are not received;
/// those that are no answer to the query are skipped. `None` if the answer is cut off.
pub(super) async fn ask(server: SocketAddr, query: &Query) -> Result<Option<Found>, Failure> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&query.bytes).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match query.answered(buffer.get(..length).unwrap_or_default()) {
            Ok(found) => return Ok(Some(found)),
            Err(Unusable::NotOurs) => {}
            Err(Unusable::Truncated) => return Ok(None),
            Err(Unusable::Failed(code)) => return Err(Failure::Code(code)),
        }
    }
}
