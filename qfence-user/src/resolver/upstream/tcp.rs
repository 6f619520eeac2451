//! Asks a nameserver by TCP.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Failure, query::Query};
use crate::resolver::found::{Found, Unusable};

/// Sends a query on a connection of its own, and reads the answer.
pub(super) async fn ask(server: SocketAddr, query: &Query) -> Result<Found, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes.len()).map_err(|_| Failure::Code(None))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(&query.bytes);
    stream.write_all(&bytes).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    query.answered(&answer).map_err(|unusable| match unusable {
        Unusable::Failed(code) => Failure::Code(code),
        Unusable::NotOurs | Unusable::Truncated => Failure::Code(None),
    })
}
