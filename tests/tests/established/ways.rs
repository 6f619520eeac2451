//! A way of an MPTCP connection that the peer opened, which `set` does not find: nothing leaves by it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    run::to_end,
    shell::Shell,
    workspace,
    world::{HOST_V4, SERVER_V4, World},
};

use super::nobody;

/// The port that the fence both connects from and listens to.
const INSIDE: u16 = 7000;
const PORT: u16 = 8080;

/// Connects by MPTCP from a port, listens there too, and sends something for each line that it reads.
const CLIENT: &str = r#"
import socket, sys
inside, server, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
MPTCP, SOL_MPTCP, MPTCP_INFO = 262, 284, 1
def bound():
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", inside))
    return made
connection = bound()
connection.connect((server, port))
connection.settimeout(2)
listener = bound()
listener.listen()
connection.send(b"begin")
connection.recv(64)
print("connected", flush=True)
for line in sys.stdin:
    try:
        connection.send(b"more")
        answer = connection.recv(64)
        ways = connection.getsockopt(SOL_MPTCP, MPTCP_INFO, 128)[0]
        print("answered" if answer else "end", ways, flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"#;

/// Echoes, and opens another way to the client, by the path manager's netlink protocol (linux/mptcp_pm.h).
const SERVER: &str = r#"
import socket, struct, sys
port, local, client, inside = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
MPTCP, SOL_MPTCP, MPTCP_INFO = 262, 284, 1
NETLINK_GENERIC, CONTROL, GET_FAMILY, SUBFLOW_CREATE = 16, 16, 3, 10
NESTED = 0x8000
def attribute(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
def ask(family, command, version, body):
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    message = struct.pack("BBH", command, version, 0) + body
    link.send(struct.pack("IHHII", 16 + len(message), family, 1 | 4, 1, 0) + message)
    return link.recv(8192)
answer, at, family = ask(CONTROL, GET_FAMILY, 1, attribute(2, b"mptcp_pm\0")), 20, None
while family is None:
    length, kind = struct.unpack_from("HH", answer, at)
    if kind == 1:
        family = struct.unpack_from("H", answer, at + 4)[0]
    at += (length + 3) & ~3
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", port))
listener.listen()
print("serving", flush=True)
connection, _ = listener.accept()
connection.send(connection.recv(64))
# The second word but one of the struct's 32-bit fields behind the eight of bytes.
token = struct.unpack_from("I", connection.getsockopt(SOL_MPTCP, MPTCP_INFO, 128), 12)[0]
sys.stdin.readline()
def end(address, *more):
    return attribute(1, struct.pack("H", socket.AF_INET)) + attribute(3, socket.inet_aton(address)) + b"".join(more)
made = ask(family, SUBFLOW_CREATE, 1,
    attribute(4, struct.pack("I", token))
    + attribute(1 | NESTED, end(local, attribute(2, b"\x05")))
    + attribute(6 | NESTED, end(client, attribute(5, struct.pack("H", inside)))))
print("way", struct.unpack_from("i", made, 16)[0], flush=True)
while data := connection.recv(64):
    connection.send(data)
"#;

/// Starts a program in Python after a launcher.
fn start(world: &World, fence: Option<&Fence>, text: &str, words: &str) -> Result<Shell> {
    let script = tempfile::NamedTempFile::new()?;
    fs::write(script.path(), text)?;
    workspace::make_readable(script.path())?;
    let command = match fence {
        Some(fence) => fence.command(&world.host, "sh"),
        None => world.internet.command("sh"),
    };
    let mut shell = Shell::start(command)?;
    let path = script.path().display();
    shell.tell(&format!("exec /usr/bin/python3 {path} {words}"))?;
    let first = shell.next_line()?;
    ensure!(["serving", "connected"].contains(&&*first), "{first}");
    Ok(shell)
}

#[test]
fn by_a_way_that_the_peer_opened_nothing_leaves_any_more() -> Result<()> {
    let world = World::new()?;
    world
        .host
        .ip("mptcp limits set subflow 4 add_addr_accepted 4")?;
    // The peer's ways are opened by whoever asks.
    world.internet.sysctl("net/mptcp/pm_type", "1")?;
    let words = format!("{PORT} {SERVER_V4} {HOST_V4} {INSIDE}");
    let mut server = start(&world, None, SERVER, &words)?;
    let fence = nobody("ways")?;
    let words = format!("{INSIDE} {SERVER_V4} {PORT}");
    let mut client = start(&world, Some(&fence), CLIENT, &words)?;
    server.tell("")?;
    assert_eq!(server.next_line()?, "way 0");
    client.tell("")?;
    let line = client.next_line()?;
    let ways = line.strip_prefix("answered ").context(line.clone())?;
    ensure!(ways == "1", "control: one way beside the first: {line}");

    let mut set = world.host.command(qfence()?);
    set.args(["set", fence.name(), "--deny", &SERVER_V4.to_string()]);
    let ended = to_end(set)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    for _ in 0..2 {
        client.tell("")?;
        let line = client.next_line()?;
        assert!(!line.starts_with("answered"), "{line}");
    }
    fence.await_refusal(|refusal| {
        refusal.hook == "egress" && refusal.destination == SERVER_V4.to_string()
    })?;
    Ok(())
}
