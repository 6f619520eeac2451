//! Many peers on the host at once: each that spoke first is answered, as long as there is room for it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, lpm_trie::LpmTrie};
use qfence_common::{
    Peer,
    abi::{PEERS, PEERS_MAP},
};
use qfence_user::kernel::pins::of_maps;
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    fence::{Fence, qfence},
    probe, remains,
    run::wait_until,
    shell::Shell,
    workspace,
    world::World,
};

/// The port in the fence.
const INSIDE: u16 = 5000;

/// Answers each datagram, and once it is asked to, all of the last 2,000 senders again. Prints how many were refused.
const SERVER: &str = r#"
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", int(sys.argv[1])))
print("serving", flush=True)
peers, refused = [], 0
def answer(text, peer):
    global refused
    try:
        server.sendto(text, peer)
    except OSError:
        refused += 1
while True:
    text, peer = server.recvfrom(64)
    if text == b"all":
        for other in peers[-2000:]:
            answer(b"again", other)
        print(refused, flush=True)
    else:
        peers.append(peer)
        answer(b"noted", peer)
"#;

/// Speaks to the fence from many ports, each of which is answered. Then has the last of them answered again, and prints
/// how many were.
const CLIENT: &str = r#"
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
kept = []
for number in range(count):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(10)
    client.bind((f"127.0.1.{number // 20000}", 10000 + number % 20000))
    client.sendto(b"hello", ("127.0.0.1", port))
    if client.recv(64) != b"noted":
        sys.exit("no answer")
    kept = kept[-1999:] + [client]
kept[-1].sendto(b"all", ("127.0.0.1", port))
print(sum(client.recv(64) == b"again" for client in kept))
"#;

/// A fence with the server in it, and a host whose clients speak to it.
struct Scene {
    world: World,
    fence: Fence,
    shell: Shell,
    scripts: TempDir,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]);
        let scripts = tempfile::tempdir()?;
        workspace::make_readable(scripts.path())?;
        for (name, text) in [("server", SERVER), ("client", CLIENT)] {
            let path = scripts.path().join(name);
            fs::write(&path, text)?;
            workspace::make_readable(&path)?;
        }
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        let server = scripts.path().join("server");
        shell.tell(&format!("/usr/bin/python3 {} {INSIDE} &", server.display()))?;
        ensure!(shell.next_line()? == "serving");
        Ok(Self {
            world,
            fence,
            shell,
            scripts,
        })
    }

    /// Has `count` peers speak, and returns how many of the last 2,000 were answered again.
    fn speak(&mut self, count: u32) -> Result<String> {
        let script = "ulimit -n 8192; exec /usr/bin/python3 \"$@\"";
        let mut client = self.world.host.command("sh");
        client
            .args(["-c", script, "sh"])
            .arg(self.scripts.path().join("client"))
            .args([INSIDE.to_string(), count.to_string()]);
        let answered = probe::output(&mut client)?;
        assert_eq!(self.shell.next_line()?, "0", "answers were refused");
        Ok(answered.trim().to_owned())
    }

    /// The number of peers that were forgotten, as `ps` shows it.
    fn forgotten(&self) -> Result<u64> {
        let rows = probe::output(Command::new(qfence()?).args(["ps", "--json"]))?;
        let rows: Vec<Value> = serde_json::from_str(&rows)?;
        let row = rows.iter().find(|row| row["name"] == self.fence.name());
        let row = row.context("the fence is listed")?;
        let forgotten = row["attempts"]["peers_forgotten"].as_u64();
        forgotten.with_context(|| row.to_string())
    }

    /// The number of peers in the map.
    fn remembered(&self) -> Result<usize> {
        let pin = Path::new("/sys/fs/bpf/qfence").join(self.fence.name());
        let map = MapData::from_pin(of_maps(&pin).join(PEERS_MAP))?;
        let peers: LpmTrie<_, Peer, u64> = Map::from_map_data(map)?.try_into()?;
        let all: Vec<_> = peers.keys().collect::<Result<_, _>>()?;
        Ok(all.len())
    }

    fn end(mut self) -> Result<()> {
        assert_eq!(self.fence.refusals()?, []);
        self.shell.tell("kill $!; exit 0")?;
        wait_until("the fence is gone", || {
            Ok(remains::of(self.fence.name())?.is_empty())
        })
    }
}

#[test]
fn two_thousand_peers_at_once_are_all_answered() -> Result<()> {
    let mut scene = Scene::new("crowd")?;
    assert_eq!(scene.speak(2000)?, "2000");
    assert_eq!(scene.forgotten()?, 0);
    assert_eq!(scene.remembered()?, 2000);
    scene.end()
}

/// More peers than there is room for: the latest are answered, the map is bounded, and each that was forgotten is counted.
#[test]
fn more_peers_than_are_remembered_push_out_older_ones() -> Result<()> {
    const MORE: u32 = 100;
    let mut scene = Scene::new("peers")?;
    assert_eq!(scene.speak(PEERS + MORE)?, "2000");
    assert_eq!(scene.remembered()?, usize::try_from(PEERS)?);
    assert_eq!(scene.forgotten()?, u64::from(MORE));
    scene.end()
}
