//! Listeners that change between connect() and the handshake, so that a service of the host could accept the connection.

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    namespace::NOBODY,
    probe::{self, output},
    world::{HOST_LINK_LOCAL, World},
};

use super::{INSIDE, nobody, serve, stop};

/// A listener that answers by a SYN cookie keeps nothing of the connection. Whoever listens when the third segment arrives
/// accepts it, and for a connection that is established at the client no later segment is judged.
#[test]
fn a_listener_that_answers_by_a_cookie_is_not_connected_to() -> Result<()> {
    let world = World::new()?;
    let fence = nobody("cookie", &["self"])?;
    let mut shell = serve(&world, &fence, &format!("tcp/{INSIDE}"))?;
    let attempts = ["127.0.0.1", "::1"].map(|address| format!("tcp/{address}/{INSIDE}"));
    let words = ["--timeout-ms", "700", &attempts[0], &attempts[1]];
    for (cookies, is_open) in [("1", true), ("2", false), ("1", true)] {
        world.host.sysctl("net/ipv4/tcp_syncookies", cookies)?;
        for outcome in probe::run(&world.host, &words)? {
            ensure!(outcome.says("hello from the probe"), "control: {outcome:?}");
        }
        for outcome in shell.attempt(&words)? {
            ensure!(
                outcome.says("hello from the probe") == is_open,
                "{cookies}: {outcome:?}"
            );
        }
    }
    stop(shell)
}

/// A pair whose listener shares its port before the SYN is repeated. The queue of the listener is full at first.
const PAIR: &str = r#"
import select, socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(0)
first = socket.socket()
first.connect(listener.getsockname())
second = socket.socket()
second.setblocking(False)
second.connect_ex(listener.getsockname())
if select.select([], [second], [], 0.5)[1]:
    sys.exit("the queue is not full")
taken = listener.accept()
if sys.argv[1:] == ["shared"]:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
print("connected" if select.select([], [second], [], 4)[1] and not second.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
      else "not connected")
"#;

#[test]
fn a_listener_that_shares_its_port_after_connect_is_no_pair() -> Result<()> {
    let world = World::new()?;
    for (words, fenced) in [
        (&["alone"][..], "connected\n"),
        (&["shared"], "not connected\n"),
    ] {
        let mut control = world.host.command_as(NOBODY, "/usr/bin/python3");
        let control = output(control.args(["-c", PAIR]).args(words))?;
        assert_eq!(control, "connected\n", "control: {words:?}");
        let fence = Fence::new("shared")?.with(&["--user", "nobody"]);
        let mut command = fence.command(&world.host, "/usr/bin/python3");
        let made = output(command.args(["-c", PAIR]).args(words))?;
        assert_eq!(made, fenced, "{words:?}");
    }
    Ok(())
}

/// A request for a connection to a link-local address cannot be found when it is answered: it has the device of that address,
/// and its packets come through loopback. So the call is refused.
#[test]
fn a_listener_at_a_link_local_address_is_not_self() -> Result<()> {
    const CONNECT: &str = r#"
import socket, sys
listener = socket.socket(socket.AF_INET6)
listener.bind(("::", 5000))
listener.listen()
client = socket.socket(socket.AF_INET6)
client.settimeout(2)
try:
    client.connect(socket.getaddrinfo(sys.argv[1], 5000, type=socket.SOCK_STREAM)[0][4])
    print("connected")
except ConnectionRefusedError:
    print("refused")
"#;
    let world = World::new()?;
    let address = format!("{HOST_LINK_LOCAL}%eth0");
    let mut control = world.host.command_as(NOBODY, "/usr/bin/python3");
    let control = output(control.args(["-c", CONNECT, &address]))?;
    assert_eq!(control, "connected\n", "the control");
    let fence = nobody("link-local", &["self"])?;
    for (address, expected) in [("::1", "connected\n"), (&*address, "refused\n")] {
        let mut command = fence.command(&world.host, "/usr/bin/python3");
        assert_eq!(output(command.args(["-c", CONNECT, address]))?, expected);
    }
    // No rule for `self` is advised.
    let refusal = fence.await_refusal(|refusal| refusal.destination.starts_with("fe80:"))?;
    assert_eq!(refusal.hook, "connect6", "{refusal:?}");
    Ok(())
}
