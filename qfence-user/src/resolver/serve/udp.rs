//! Serves datagrams.

use std::{rc::Rc, time::Duration};

use tokio::{net::UdpSocket, task::spawn_local, time::sleep};

use super::{Reply, Server};
use crate::resolver::{desk::Origin, ends::Transport};

/// The longest query. The rest of a longer one is cut off, and it is malformed.
const LONGEST: usize = 4096;

/// The time between two attempts to read after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the datagrams of a socket.
pub(in crate::resolver) async fn serve(server: Rc<Server>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        let from = Origin {
            source,
            transport: Transport::Udp,
        };
        if !server.is_of_fence(from) {
            continue;
        }
        server.turn().await;
        match server.receive(buffer.get(..length).unwrap_or_default(), from) {
            Reply::Nothing => {}
            Reply::Now(answer) => send(&socket, &answer, from),
            Reply::Later(answer) => {
                let socket = Rc::clone(&socket);
                spawn_local(async move { send(&socket, &answer.await, from) });
            }
        }
    }
}

/// Sends an answer. One that does not fit into the buffer of the socket is lost, as datagrams are.
fn send(socket: &UdpSocket, answer: &[u8], from: Origin) {
    let _ = socket.try_send_to(answer, from.source);
}
