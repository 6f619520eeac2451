//! Serves connections.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{Reply, Server};
use crate::resolver::{desk::Origin, ends::Transport};

/// The most connections of a listener. Further ones are closed.
const CONNECTIONS: usize = 64;

/// The longest query. The connection of a longer one is closed.
const LONGEST: usize = 4096;

/// How long a connection may be silent, and how long a client may take to read an answer.
const IDLE: Duration = Duration::from_secs(10);

/// The time between two attempts to accept a connection after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the queries on the connections of a listener.
pub(in crate::resolver) async fn serve(server: Rc<Server>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, source)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let from = Origin {
            source,
            transport: Transport::Tcp,
        };
        if !server.is_of_fence(from) {
            continue;
        }
        server.turn().await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            server.counts().dropped.add();
            continue;
        };
        let server = Rc::clone(&server);
        spawn_local(async move {
            // However it ends, the connection is closed.
            let _ = converse(&server, stream, from).await;
            drop(place);
        });
    }
}

/// Answers the queries of a connection, one after the other.
async fn converse(server: &Rc<Server>, mut stream: TcpStream, from: Origin) -> io::Result<()> {
    loop {
        let query = timeout(IDLE, read(&mut stream)).await??;
        server.turn().await;
        let answer = match server.receive(&query, from) {
            Reply::Nothing => return Ok(()),
            Reply::Now(answer) => answer,
            Reply::Later(answer) => answer.await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, stream.write_all(&bytes)).await??;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
