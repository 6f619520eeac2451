//! Who counts as having spoken first: not the fence itself, nor who answers what it asked under another policy, from
//! whatever port.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{
    Map, MapData,
    lpm_trie::{Key, LpmTrie},
};
use qfence_common::{Peer, abi::PEERS_MAP, peer::Heard};
use qfence_user::kernel::pins::of_maps;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::{self, ProbeResult},
    run::to_end,
    shell::Shell,
    workspace,
    world::World,
};

/// The port in the fence.
const INSIDE: u16 = 5000;
/// A port of the host's.
const PORT: u16 = 5353;

fn set(world: &World, fence: &Fence, options: &[&str]) -> Result<()> {
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name()]).args(options);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{options:?}: {ended:?}");
    Ok(())
}

fn ask(shell: &mut Shell, attempt: &str) -> Result<ProbeResult> {
    let outcomes = shell.attempt(&["--timeout-ms", "500", attempt])?;
    outcomes.into_iter().next().context("one outcome")
}

/// Has somebody on the host speak to the fence from a port.
fn speak(world: &World, port: u16) -> Result<ProbeResult> {
    let attempt = format!("udp/127.0.0.1/{INSIDE}+port={port}+reuse");
    let outcomes = probe::run(&world.host, &["--timeout-ms", "500", &attempt])?;
    outcomes.into_iter().next().context("one outcome")
}

/// Starts a service in the fence that answers nobody, and waits until it is up.
fn serve(inside: &mut Shell) -> Result<()> {
    let program = probe::program()?.display().to_string();
    inside.tell(&format!("{program} --serve udp/{INSIDE} &"))?;
    ensure!(inside.next_line()? == "serving");
    Ok(())
}

/// By a port that a rule allows, and that it serves itself, a fence is no peer of its own: who has the sender's port next
/// would be one.
#[test]
fn a_fence_does_not_make_itself_a_peer() -> Result<()> {
    let world = World::new()?;
    let rule = format!("udp:127.0.0.1:{INSIDE}");
    let fence = Fence::new("own")?.with(&["--user", "nobody", "--allow", &rule]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    serve(&mut inside)?;
    let forged = ask(
        &mut inside,
        &format!("udp/127.0.0.1/{INSIDE}+port={PORT}+reuse"),
    )?;
    ensure!(forged.errno.is_none(), "control: {forged:?}");
    let services = Listeners::everywhere(&world.host, PORT)?;
    let way = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    for _ in 0..3 {
        let outcome = ask(&mut inside, &way)?;
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(services.arrivals(), []);
    drop(services);
    // The control: who does speak first, from another port, is answered.
    let outcome = speak(&world, PORT + 1)?;
    ensure!(outcome.errno.is_none(), "{outcome:?}");
    let outcome = ask(
        &mut inside,
        &format!("udp/127.0.0.1/{}+port={INSIDE}+reuse", PORT + 1),
    )?;
    ensure!(outcome.errno.is_none(), "control: {outcome:?}");
    inside.tell("kill $!; exit")
}

/// Asks the host from a port, hears an answer, and sends something to whoever answered for each line that it reads.
const ASKER: &str = r#"
import socket, sys
inside, port = int(sys.argv[1]), int(sys.argv[2])
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.bind(("127.0.0.1", inside))
asker.settimeout(10)
asker.sendto(b"ask", ("127.0.0.1", port))
peer = asker.recvfrom(64)[1]
print("answered", flush=True)
for line in sys.stdin:
    try:
        for _ in range(4):
            asker.recvfrom(64)
        asker.sendto(b"go on", peer)
        print("sent", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"#;

/// A service that answers from a port of its own choice (as TFTP does), again and again, speaks first only as long as
/// the policy is in force under which it was asked.
#[test]
fn an_answer_from_a_new_port_opens_nothing_that_a_change_does_not_take_back() -> Result<()> {
    let world = World::new()?;
    let at = SocketAddr::from(([127, 0, 0, 1], PORT));
    let (service, answers) = world.host.run(|| {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok((UdpSocket::bind(at)?, UdpSocket::bind(any)?))
    })?;
    let (heard, hears) = mpsc::channel();
    thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 64];
        let (_, peer) = service.recv_from(&mut buffer)?;
        answers.set_read_timeout(Some(Duration::from_millis(50)))?;
        loop {
            answers.send_to(b"answer", peer)?;
            if answers.recv_from(&mut buffer).is_ok() && heard.send(()).is_err() {
                return Ok(());
            }
        }
    });
    let rule = format!("udp:{at}");
    let fence = Fence::new("answers")?.with(&["--user", "nobody", "--allow", &rule]);
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), ASKER)?;
    workspace::make_readable(script.path())?;
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let path = script.path().display();
    inside.tell(&format!("/usr/bin/python3 {path} {INSIDE} {PORT}"))?;
    ensure!(inside.next_line()? == "answered");
    inside.tell("")?;
    ensure!(inside.next_line()? == "sent", "control");
    hears
        .recv_timeout(Duration::from_secs(10))
        .context("control")?;

    set(&world, &fence, &["--deny", &rule])?;
    while hears.try_recv().is_ok() {}
    for _ in 0..3 {
        inside.tell("")?;
        // ECONNREFUSED.
        assert_eq!(inside.next_line()?, "111");
    }
    assert!(hears.try_recv().is_err());
    Ok(())
}

/// Makes all peers such as have not been heard of for long.
fn age(fence: &Fence) -> Result<()> {
    let pin = Path::new("/sys/fs/bpf/qfence").join(fence.name());
    let map = MapData::from_pin(of_maps(&pin).join(PEERS_MAP))?;
    let mut peers: LpmTrie<_, Peer, u64> = Map::from_map_data(map)?.try_into()?;
    let all: Vec<Key<Peer>> = peers.keys().collect::<Result<_, _>>()?;
    ensure!(!all.is_empty(), "nobody is remembered");
    for peer in all {
        peers.insert(&peer, Heard::now(0, true).0, 0)?;
    }
    Ok(())
}

/// Monitor mode lets a late datagram through to a peer that spoke first long ago: that does not make it one that was asked.
#[test]
fn who_once_spoke_first_is_not_asked() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("late")?.with(&["--user", "nobody", "--monitor"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    serve(&mut inside)?;
    let answer = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    ensure!(speak(&world, PORT)?.errno.is_none());
    age(&fence)?;
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.errno.is_none(), "monitored: {outcome:?}");
    set(&world, &fence, &["--enforce"])?;
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.failed_with("ECONNREFUSED"), "control: {outcome:?}");
    ensure!(speak(&world, PORT)?.errno.is_none());
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.errno.is_none(), "it spoke first: {outcome:?}");
    inside.tell("kill $!; exit")
}

/// A port of the fence that asks and is spoken to, as a WireGuard's: whoever spoke before the fence asked anybody is
/// answered again after a change of the policy, as soon as it speaks.
#[test]
fn who_spoke_unasked_is_answered_again_after_changes() -> Result<()> {
    let world = World::new()?;
    let asked = PORT + 1;
    let rule = format!("udp:127.0.0.1:{asked}");
    let fence = Fence::new("known")?.with(&["--user", "nobody", "--allow", &rule]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    serve(&mut inside)?;
    let answer = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    ensure!(speak(&world, PORT)?.errno.is_none());
    let ask_by_rule = format!("udp/127.0.0.1/{asked}+port={INSIDE}+reuse");
    ensure!(ask(&mut inside, &ask_by_rule)?.errno.is_none(), "control");
    for denied in ["203.0.113.200", "203.0.113.201"] {
        set(&world, &fence, &["--deny", denied])?;
        let outcome = ask(&mut inside, &answer)?;
        ensure!(outcome.failed_with("ECONNREFUSED"), "control: {outcome:?}");
        ensure!(speak(&world, PORT)?.errno.is_none());
        let outcome = ask(&mut inside, &answer)?;
        assert!(outcome.errno.is_none(), "it spoke first: {outcome:?}");
    }
    inside.tell("kill $!; exit")
}

/// A change that only allows more takes nothing back: who was answered before is.
#[test]
fn to_allow_more_forgets_nobody() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("more")?.with(&["--user", "nobody"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    serve(&mut inside)?;
    let answer = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    ensure!(speak(&world, PORT)?.errno.is_none());
    set(&world, &fence, &["--allow", "udp:192.0.2.10:9"])?;
    let outcome = ask(&mut inside, &answer)?;
    assert!(outcome.errno.is_none(), "{outcome:?}");
    inside.tell("kill $!; exit")
}
