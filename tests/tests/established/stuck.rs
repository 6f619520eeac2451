//! A process of the fence that keeps the kernel from a socket, or is in many network namespaces, does not keep `set`
//! from ending what it can.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use qfence_common::{Change, abi::CHANGE_MAP};
use qfence_user::kernel::pins::of_maps;
use tests::{
    fence::{Fence, qfence},
    fuse::Fuse,
    run::to_end,
    shell::Shell,
    world::{GATEWAY_V4, SERVER_V4},
};

use super::{
    enter, nobody,
    scene::{Holder, Scene, TCP, WATCHED, to},
};

/// How long `set` may take that gives up after ten seconds without an end.
const LIMIT: Duration = Duration::from_secs(40);

/// Opens connections, and receives into pages of a file, each in a thread: the kernel keeps the sockets locked
/// until it has the page.
const KEEPER: &str = r#"
import mmap, os, socket, sys, threading
path, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
file = os.open(path, os.O_RDONLY)
page = mmap.mmap(file, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
for _ in range(count):
    connection = socket.create_connection((host, port))
    connection.sendall(b"x")
    threading.Thread(target=connection.recv_into, args=(page,)).start()
print("kept", flush=True)
"#;

/// Has a process of the fence keep the sockets of connections to the server.
fn keep(scene: &Scene, fence: &Fence, fuse: &Fuse, count: usize) -> Result<Shell> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), KEEPER)?;
    let mut keeper = Shell::start(scene.world.host.command("sh"))?;
    keeper.tell(&format!(
        "{} exec /usr/bin/python3 {} {} {SERVER_V4} {WATCHED} {count}",
        enter(fence)?,
        script.path().display(),
        fuse.file().display()
    ))?;
    ensure!(keeper.next_line()? == "kept");
    fuse.await_reads(1)?;
    // The others wait for the same page by now, or are about to.
    thread::sleep(Duration::from_millis(200));
    Ok(keeper)
}

/// Runs a command that may be stuck in the kernel; its status and what it says, or `None` if it does not end.
fn end_in_time(mut command: Command, limit: Duration) -> Result<Option<(Option<i32>, String)>> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    // Its standard error is read when it has ended, and ends then: nobody who is left behind has it.
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            let mut said = String::new();
            let mut stderr = child.stderr.take().context("a piped stderr")?;
            stderr.read_to_string(&mut said)?;
            return Ok(Some((status.code(), said)));
        }
        thread::sleep(Duration::from_millis(10));
    }
    // A killed process in state D ends when what it waits for does.
    child.kill()?;
    Ok(None)
}

fn deny_server(scene: &Scene, fence: &Fence) -> Result<Command> {
    let mut command = scene.world.host.command(qfence()?);
    command.args(["set", fence.name(), "--deny", &SERVER_V4.to_string()]);
    Ok(command)
}

/// Whether the programs judge what standing connections carry on.
fn judges_standing(fence: &Fence) -> Result<bool> {
    let pin = Path::new("/sys/fs/bpf/qfence").join(fence.name());
    let map = MapData::from_pin(of_maps(&pin).join(CHANGE_MAP))?;
    let changes: Array<_, Change> = Map::from_map_data(map)?.try_into()?;
    Ok(changes.get(&0, 0)?.judges_standing != 0)
}

#[test]
fn a_process_that_keeps_sockets_does_not_keep_other_connections() -> Result<()> {
    for count in [1, 12] {
        let scene = Scene::new()?;
        let fence = nobody("kept")?;
        let (denied, other) = (to("tcp", SERVER_V4, WATCHED), to("tcp", GATEWAY_V4, TCP));
        let all = [denied.clone(), other.clone()];
        let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
        let mut fuse = Fuse::on(&scene.world.host)?;
        let mut set = scene.world.host.command(qfence()?);
        set.args(["set", fence.name(), "--deny", "203.0.113.200"]);
        set.arg("--keep-established");
        ensure!(to_end(set)?.code() == Some(0));
        ensure!(!judges_standing(&fence)?, "control: all is let stand");
        let _keeper = keep(&scene, &fence, &fuse, count)?;

        let ended = end_in_time(deny_server(&scene, &fence)?, LIMIT);
        let others = inside.await_ended(std::slice::from_ref(&denied), "ECONNABORTED");
        // Whatever came of it, nobody is to be stuck after the test.
        fuse.release()?;
        let (code, said) = ended?.context("`set` is stuck in the kernel")?;
        others?;
        inside.ensure_stand(&[other])?;
        assert_eq!(code, Some(125), "{said}");
        assert!(
            said.contains(&format!("to {SERVER_V4}:{WATCHED}")),
            "{said}"
        );
        assert!(said.contains("the new policy is in force, but"), "{said}");
        assert_eq!(
            said.matches(&format!("to {SERVER_V4}:")).count(),
            count + 1,
            "{said}"
        );
        assert!(judges_standing(&fence)?, "what stands may go on");
        // What was left behind ends as soon as its socket is let go.
        scene.await_resets(count + 1)?;
    }
    Ok(())
}

/// More than there may be open files, each with a process in it.
#[test]
fn the_namespaces_of_a_fence_are_more_than_descriptors() -> Result<()> {
    const NAMESPACES: usize = 60;
    const FILES: usize = 40;
    let scene = Scene::new()?;
    let fence = nobody("namespaces")?;
    let denied = [to("tcp", SERVER_V4, WATCHED)];
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &denied)?;
    let mut many = Shell::start(scene.world.host.command("sh"))?;
    many.ask(&format!(
        "{} for i in $(seq {NAMESPACES}); do unshare -n sleep 1000 & done; \
         until [ $(stat -Lc %i /proc/[0-9]*/ns/net | sort -u | wc -l) -gt {NAMESPACES} ]; do sleep 0.1; done",
        enter(&fence)?
    ))?;
    let mut set = deny_server(&scene, &fence)?;
    let words: Vec<_> = set.get_args().map(ToOwned::to_owned).collect();
    set = scene.world.host.command("prlimit");
    set.arg(format!("--nofile={FILES}"))
        .arg(qfence()?)
        .args(words);
    let ended = to_end(set)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    inside.await_ended(&denied, "ECONNABORTED")
}
