//! Sockets that outlive the fence they were made in, in the hands of a process of another: they reach nothing any more.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use nix::sys::signal::Signal;
use qfence_common::{Node, abi::POLICY_MAP};
use qfence_user::kernel::pins::of_maps;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    process::Process,
    remains::cgroup,
    run::{to_end, wait_until},
    shell::Shell,
    workspace,
    world::{HOST_V4, SERVER_V4, World},
};

const PORT: u16 = 8080;

/// Takes sockets of somebody else, and uses one for each line that it reads: `tcp` or `udp`, and an address.
const TAKER: &str = r#"
import socket, sys
name, port = "\0" + sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_UNIX)
listener.bind(name)
listener.listen()
print("listening", flush=True)
taken, _ = listener.accept()
_, descriptors, _, _ = socket.recv_fds(taken, 1, 64)
sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
taken.send(b"x")
print("taken", len(sockets), flush=True)
for line in sys.stdin:
    if line == "let go\n":
        taken.close()
        continue
    kind, address = line.split()
    wanted = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    used = next(one for one in sockets if one.type == wanted)
    sockets.remove(used)
    try:
        used.settimeout(2)
        used.connect((address, port))
        used.send(b"hello")
        print("reached" if used.recv(64) else "end", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"#;

/// Makes sockets, hands them on, and ends when they were taken; or with a third argument, when the taker lets it go.
const GIVER: &str = r#"
import socket, sys
made = [socket.socket(type=kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for _ in range(2)]
to = socket.socket(socket.AF_UNIX)
to.connect("\0" + sys.argv[1])
socket.send_fds(to, [b"x"], [one.fileno() for one in made])
to.recv(1)
while len(sys.argv) > 2 and to.recv(1):
    pass
"#;

struct Scripts {
    taker: tempfile::NamedTempFile,
    giver: tempfile::NamedTempFile,
}

impl Scripts {
    fn new() -> Result<Self> {
        let script = |text: &str| -> Result<_> {
            let file = tempfile::NamedTempFile::new()?;
            fs::write(file.path(), text)?;
            workspace::make_readable(file.path())?;
            Ok(file)
        };
        Ok(Self {
            taker: script(TAKER)?,
            giver: script(GIVER)?,
        })
    }
}

/// Has a process of the fence `taker` take sockets that were made after a launcher, until that has ended. Returns the
/// taker.
fn hand_over(world: &World, taker: &Fence, launcher: &[String]) -> Result<Shell> {
    let scripts = Scripts::new()?;
    let (mut inside, giver) = begin_to_hand_over(world, taker, launcher, &scripts)?;
    let ended = to_end(giver)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    ensure!(inside.next_line()? == "taken 4");
    Ok(inside)
}

/// Starts the process that takes the sockets. Returns it, and the command that gives them.
fn begin_to_hand_over(
    world: &World,
    taker: &Fence,
    launcher: &[String],
    scripts: &Scripts,
) -> Result<(Shell, Command)> {
    let name = taker.name();
    let mut inside = Shell::start(taker.command(&world.host, "sh"))?;
    let path = scripts.taker.path().display();
    inside.tell(&format!("exec /usr/bin/python3 {path} {name} {PORT}"))?;
    ensure!(inside.next_line()? == "listening");
    let mut giver = world.host.command("env");
    giver.args(launcher).arg("/usr/bin/python3");
    giver.arg(scripts.giver.path()).arg(name);
    Ok((inside, giver))
}

/// A fence whose sockets another one has, and which still exists.
struct Giver {
    /// The process that has the sockets.
    inside: Shell,
    supervisor: Process,
    policy: Policy,
}

impl Giver {
    fn start(world: &World, taker: &Fence, giver: &Fence) -> Result<Self> {
        let scripts = Scripts::new()?;
        let (mut inside, mut command) =
            begin_to_hand_over(world, taker, &giver.launcher(), &scripts)?;
        command.arg("stay");
        let supervisor = Process::spawn(command)?;
        ensure!(inside.next_line()? == "taken 4");
        // As a `set` that has the policy's maps open.
        let policy = Policy::of(giver)?;
        Ok(Self {
            inside,
            supervisor,
            policy,
        })
    }
}

fn use_one(taker: &mut Shell, kind: &str, address: impl ToString) -> Result<String> {
    taker.tell(&format!("{kind} {}", address.to_string()))?;
    taker.next_line()
}

/// Checks that no socket of one that has ended reaches anything.
fn reaches_nothing(taker: &mut Shell) -> Result<()> {
    for kind in ["tcp", "udp"] {
        for address in [HOST_V4, SERVER_V4] {
            let outcome = use_one(taker, kind, address)?;
            ensure!(
                outcome == "ConnectionRefusedError",
                "{kind} {address}: {outcome}"
            );
        }
    }
    Ok(())
}

/// The links of fences that have ended.
fn remains() -> Result<Vec<std::path::PathBuf>> {
    let parent = Path::new("/sys/fs/bpf/qfence-ended");
    if !parent.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(parent)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(fs::DirEntry::path).collect())
}

/// The policy of a fence: its tree, and the slot for it.
struct Policy {
    slot: ArrayOfMaps<MapData, Array<MapData, Node>>,
    tree: Array<MapData, Node>,
}

impl Policy {
    fn of(fence: &Fence) -> Result<Self> {
        let path = of_maps(&Path::new("/sys/fs/bpf/qfence").join(fence.name())).join(POLICY_MAP);
        let map = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
        let slot = ArrayOfMaps::try_from(Map::from_map_data(map)?)?;
        let tree = slot.get(&0, 0)?;
        Ok(Self { slot, tree })
    }

    /// Checks that it cannot be put back.
    fn ensure_sealed(&mut self) -> Result<()> {
        let Err(error) = self.slot.set(0, &self.tree, 0) else {
            anyhow::bail!("the policy can be put back");
        };
        let error = format!("{:#}", anyhow::Error::from(error));
        ensure!(error.contains("Operation not permitted"), "{error}");
        Ok(())
    }
}

#[test]
fn sockets_of_a_fence_that_has_ended_reach_nothing() -> Result<()> {
    let world = World::new()?;
    let _host = Listeners::everywhere(&world.host, PORT)?;
    let _internet = Listeners::everywhere(&world.internet, PORT)?;
    let nobody = |label| -> Result<_> { Ok(Fence::new(label)?.with(&["--user", "nobody"])) };

    // The control: what was made outside of any fence.
    let taker = nobody("taker")?;
    let mut inside = hand_over(&world, &taker, &[])?;
    for kind in ["tcp", "udp"] {
        let outcome = use_one(&mut inside, kind, HOST_V4)?;
        ensure!(outcome == "reached", "control: {kind} {outcome}");
    }
    drop(inside);

    let (taker, giver) = (nobody("taker")?, nobody("giver")?);
    let before = remains()?;
    let Giver {
        mut inside,
        mut supervisor,
        mut policy,
    } = Giver::start(&world, &taker, &giver)?;
    inside.tell("let go")?;
    let ended = supervisor.wait(Duration::from_secs(10))?;
    ensure!(
        ended.and_then(|status| status.code()) == Some(0),
        "{ended:?}"
    );
    let mut left = remains()?;
    left.retain(|path| !before.contains(path));
    ensure!(
        left.is_empty(),
        "its programs need no links any more: {left:?}"
    );
    policy.ensure_sealed()?;
    reaches_nothing(&mut inside)
}

#[test]
fn links_are_kept_for_sockets_of_a_fence_whose_cgroup_somebody_else_has_removed() -> Result<()> {
    let world = World::new()?;
    let _host = Listeners::everywhere(&world.host, PORT)?;
    let _internet = Listeners::everywhere(&world.internet, PORT)?;
    let (taker, giver) = (Fence::new("taker")?, Fence::new("giver")?);
    let Giver {
        mut inside,
        mut supervisor,
        mut policy,
    } = Giver::start(&world, &taker, &giver)?;
    supervisor.signal(Signal::SIGKILL)?;
    supervisor.wait(Duration::from_secs(10))?;
    let cgroup = cgroup(giver.name())?;
    fs::write(cgroup.join("cgroup.kill"), "1")?;
    wait_until("its processes have ended", || {
        Ok(fs::remove_dir(&cgroup).is_ok())
    })?;

    let before = remains()?;
    let clear = || -> Result<()> {
        let mut ps = world.host.command(qfence()?);
        ps.arg("ps");
        to_end(ps).context("ps").map(drop)
    };
    let mut kept = Vec::new();
    wait_until("its links are kept", || {
        clear()?;
        kept = remains()?;
        kept.retain(|path| !before.contains(path));
        Ok(!kept.is_empty())
    })?;
    let [own] = &kept[..] else {
        anyhow::bail!("one has left its links: {kept:?}");
    };
    policy.ensure_sealed()?;
    reaches_nothing(&mut inside)?;

    // With the last socket goes what was left, as soon as somebody looks.
    inside.tell("")?;
    drop(inside);
    wait_until("nothing is left", || {
        clear()?;
        Ok(!own.exists())
    })
}
