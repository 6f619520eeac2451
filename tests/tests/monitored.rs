//! What monitor mode let a fence have, and a policy in force refuses: its packets are dropped from then on, and what
//! stays all the same is said.

use anyhow::{Result, ensure};
use tests::{
    fence::{Fence, qfence},
    run::{Ended, to_end},
    shell::Shell,
    workspace,
    world::{SERVER_V4, World},
};

const PORT: u16 = 8080;

/// Connects a socket for datagrams of a protocol, and sends one for each line that it reads.
const SENDER: &str = r#"
import socket, sys
protocol, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, protocol)
sender.connect((address, port))
if protocol == 1:
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
print("made", flush=True)
for line in sys.stdin:
    try:
        try:
            sender.recv(64, socket.MSG_DONTWAIT)
        except OSError:
            # Nobody listens there, says the one before.
            pass
        sender.send(b"\x08\x00\x00\x00\x00\x00\x00\x00")
        print("sent", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"#;
/// Pings, UDP, UDP-Lite.
const ICMP: u8 = 1;
const UDP: u8 = 17;
const UDP_LITE: u8 = 136;

/// Has a monitored fence send by a socket of a protocol, and enforces its policy then. Returns what `set` said, and the
/// first thing that comes of sending afterwards.
fn enforce(fence: &Fence, world: &World, prefix: &str, protocol: u8) -> Result<(Ended, String)> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), SENDER)?;
    workspace::make_readable(script.path())?;
    let mut outside = world.host.command("sh");
    let launcher = fence.launcher().join(" ");
    let foreign = world.internet.path();
    outside.args([
        "-c",
        &format!("exec 3<{}; exec {launcher} sh", foreign.display()),
    ]);
    let mut inside = Shell::start(outside)?;
    let path = script.path().display();
    inside.tell(&format!(
        "{prefix} /usr/bin/python3 {path} {protocol} {SERVER_V4} {PORT}"
    ))?;
    ensure!(inside.next_line()? == "made", "control");
    inside.tell("")?;
    ensure!(inside.next_line()? == "sent", "control");
    let mut set = world.host.command(qfence()?);
    set.args(["set", fence.name(), "--enforce"]);
    let ended = to_end(set)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    inside.tell("")?;
    Ok((ended, inside.next_line()?))
}

/// A socket of a kind that is refused, and one in a namespace that was made outside.
#[test]
fn sockets_that_are_refused_send_nothing_once_the_policy_is_enforced() -> Result<()> {
    for (prefix, protocol, rule) in [
        ("", UDP_LITE, "deny-raw"),
        ("nsenter --net=/proc/self/fd/3", UDP, "deny-foreign-netns"),
    ] {
        let world = World::new()?;
        let fence = Fence::new("monitored")?.with(&["--monitor", "--preserve-fds", "1"]);
        let (ended, outcome) = enforce(&fence, &world, prefix, protocol)?;
        // EPERM.
        assert_eq!(outcome, "1", "{rule}: {ended:?}");
        fence.await_refusal(|refusal| refusal.hook == "egress" && refusal.rule == rule)?;
        ensure!(
            ended
                .stderr
                .contains("sockets that are refused from now on"),
            "{ended:?}"
        );
    }
    Ok(())
}

/// An option of a socket cannot be taken back, and is said; nothing is said where there is nothing.
#[test]
fn what_cannot_be_taken_back_is_said() -> Result<()> {
    const WARNING: &str = "may still have what they got in monitor mode";
    for (protocol, warns) in [(ICMP, true), (UDP, false)] {
        let world = World::new()?;
        let fence = Fence::new("options")?.with(&["--user", "nobody", "--monitor"]);
        let (ended, outcome) = enforce(&fence, &world, "", protocol)?;
        assert_eq!(ended.stderr.contains(WARNING), warns, "{ended:?}");
        // What the policy lets through goes on.
        assert_eq!(outcome, "sent", "{ended:?}");
        if warns {
            ensure!(
                ended.stderr.contains("socket options for broadcast"),
                "{ended:?}"
            );
        }
    }
    Ok(())
}
