//! What is taken away from a running fence is reported, by name, within moments; and what is left of
//! the fence goes on holding.

mod objects;

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use objects::Objects;
use tests::{
    fence::Fence,
    listener::Listeners,
    remains,
    run::{to_end, wait_until},
    shell::Shell,
    world::{SERVER_V4, World},
};

const PORT: u16 = 8080;

struct Scene {
    world: World,
    fence: Fence,
    shell: Shell,
    objects: Objects,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]);
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        let objects = Objects::of_supervisor(shell.started())?;
        Ok(Self {
            world,
            fence,
            shell,
            objects,
        })
    }

    fn pin(&self, hook: &str) -> String {
        format!("/sys/fs/bpf/qfence/{}/{hook}", self.fence.name())
    }

    /// Waits until the supervisor has said it.
    fn await_report(&self, of: &str) -> Result<()> {
        let whole = format!("error: the fence {} is not whole: ", self.fence.name());
        wait_until(of, || {
            let said = self.shell.stderr();
            Ok(said
                .lines()
                .any(|line| line.contains(&whole) && line.contains(of)))
        })
        .with_context(|| self.shell.stderr())
    }

    /// Ends the shell; the supervisor then clears what is left.
    fn end(self) -> Result<()> {
        let Self {
            fence,
            mut shell,
            objects,
            ..
        } = self;
        shell.tell("exit 0")?;
        assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
        remains::ensure_none(fence.name())?;
        objects.wait_until_gone()
    }
}

fn bpftool(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(arguments);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "bpftool {arguments:?}: {ended:?}");
    Ok(())
}

#[test]
fn a_whole_fence_is_not_reported() -> Result<()> {
    let scene = Scene::new("whole")?;
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(scene.shell.stderr(), "");
    scene.end()
}

#[test]
fn a_pin_that_is_removed_is_reported_and_held_on_to() -> Result<()> {
    let mut scene = Scene::new("pin")?;
    let services = Listeners::everywhere(&scene.world.host, PORT)?;
    for hook in ["connect4", "sendmsg4", "egress"] {
        fs::remove_file(scene.pin(hook))?;
        scene.await_report(&format!("the pin of its link for {hook} was removed"))?;
    }
    for way in ["tcp", "udp"] {
        let outcome = scene.shell.attempt(&[&format!("{way}/127.0.0.1/{PORT}")])?;
        assert!(outcome[0].failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(services.arrivals(), []);
    assert!(!scene.shell.stderr().contains("NOT FENCED"));
    scene.end()
}

#[test]
fn a_link_that_is_detached_is_reported() -> Result<()> {
    let scene = Scene::new("link")?;
    for hook in ["connect6", "ingress", "sock_create", "device"] {
        bpftool(&["link", "detach", "pinned", &scene.pin(hook)])?;
        scene.await_report(&format!(
            "its eBPF program for {hook} is detached: what that held is NOT FENCED"
        ))?;
    }
    scene.end()
}

#[test]
fn a_policy_that_is_removed_is_reported_and_everything_refused() -> Result<()> {
    let mut scene = Scene::new("policy")?;
    let server = Listeners::everywhere(&scene.world.internet, PORT)?;
    let internet = format!("tcp/{SERVER_V4}/{PORT}");
    let before = scene.shell.attempt(&[&internet])?;
    assert!(before[0].is_reached(), "control: {before:?}");

    let policy = loaded_maps()
        .flatten()
        .find(|map| scene.objects.maps.contains(&map.id()) && map.name_as_str() == Some("POLICY"))
        .context("the policy map")?;
    let id = policy.id().to_string();
    bpftool(&["map", "delete", "id", &id, "key", "0", "0", "0", "0"])?;
    scene.await_report("its policy was removed: everything is refused")?;
    let after = scene.shell.attempt(&[&internet])?;
    assert!(after[0].failed_with("ECONNREFUSED"), "{after:?}");
    assert_eq!(server.arrivals().len(), 1);
    scene.end()
}

#[test]
fn a_command_that_is_moved_out_and_a_cgroup_that_is_removed_are_reported() -> Result<()> {
    let mut scene = Scene::new("moved")?;
    let pid = scene.shell.pid()?;
    let root = remains::cgroup2_mount()?.join("cgroup.procs");
    fs::write(&root, pid.to_string())?;
    scene.await_report(
        "the command has left its cgroup: the sockets that it makes are NOT FENCED",
    )?;
    let cgroup = remains::cgroup(scene.fence.name())?;
    fs::remove_dir(&cgroup)?;
    scene.await_report("its cgroup was removed: nothing is fenced any more")?;
    scene.end()
}
