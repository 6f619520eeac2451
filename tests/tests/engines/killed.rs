//! What starts workloads is killed, or restarted, and so is the supervisor of a fence: the fence stays, or is shown as gone.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    engines::{IMAGE, PROBE},
    run::{Ended, wait_until},
    world::BRIDGE_V4,
};

use super::{FOR_EVER, Scene, assert_fenced, assert_open, docker, followed::Followed, libvirt};

/// A container of Docker without a fence of its own.
const WEB: [&str; 5] = ["docker", "run", "--detach", "--name", "web"];

/// The state of the only fence; empty if there is none.
fn state(scene: &Scene) -> Result<String> {
    let fences: Vec<Value> = serde_json::from_str(&scene.fences()?)?;
    ensure!(fences.len() < 2, "{fences:?}");
    let state = fences.first().map(|fence| fence["state"].as_str());
    Ok(state.flatten().unwrap_or_default().to_owned())
}

fn probe_docker(scene: &Scene) -> Result<Ended> {
    scene.probe_in("docker", "web", docker::GATEWAY)
}

#[test]
fn a_supervisor_follows_its_container_although_dockerd_is_killed() -> Result<()> {
    let (scene, dockerd) = docker::scene_with("{ \"live-restore\": true }")?;
    let room = &scene.room;
    room.output(&[&WEB[..], &[IMAGE], &FOR_EVER].concat())?;
    assert_open(&probe_docker(&scene)?)?;
    let mut followed = Followed::start(&scene, "--container web")?;
    followed.in_force(1)?;
    room.kill("dockerd")?;
    drop(dockerd);
    assert_eq!(state(&scene)?, "running");
    let dockerd = room.start_docker()?;
    assert_fenced(&probe_docker(&scene)?)?;
    // The container ends while there is no dockerd. The next one removes its cgroup, and so the fence.
    room.kill("dockerd")?;
    drop(dockerd);
    room.output(&["pkill", "-KILL", "-f", "^sh -c while"])?;
    let _dockerd = room.start_docker()?;
    followed.is_over()?;
    room.output(&["docker", "start", "web"])?;
    followed.in_force(2)?;
    assert_fenced(&probe_docker(&scene)?)?;

    // The supervisor is killed, and another one takes its place.
    followed.kill()?;
    assert_eq!(state(&scene)?, "orphaned");
    assert_fenced(&probe_docker(&scene)?)?;
    let mut followed = Followed::start(&scene, "--container web")?;
    followed.in_force(1)?;
    assert_eq!(state(&scene)?, "running");
    assert_fenced(&probe_docker(&scene)?)?;
    followed.end()?;
    // The control.
    assert_open(&probe_docker(&scene)?)?;
    room.output(&["docker", "rm", "--force", "web"])?;
    scene.assert_nothing_left()
}

#[test]
fn a_fence_does_not_depend_on_containerd() -> Result<()> {
    let scene = Scene::new()?;
    let room = &scene.room;
    room.write("/usr/local/bin/qfence-runc", docker::WRAPPER)?;
    room.output(&["chmod", "755", "/usr/local/bin/qfence-runc"])?;
    let containerd = room.start_containerd()?;
    let run = "ctr run --detach --net-host --snapshotter native --cpu-shares 0";
    let image = format!("{IMAGE}:latest");
    let start = |options: &[&str], name: &str| {
        let run: Vec<_> = run.split(' ').collect();
        room.output(&[&run[..], options, &[&image, name], &FOR_EVER].concat())
    };
    let gateway = BRIDGE_V4.to_string();
    let attempts = Scene::attempts(&gateway);
    let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
    let probe = |name: &str| {
        let exec = ["ctr", "task", "exec", "--exec-id", "probe", name, PROBE];
        room.run(&[&exec, &attempts[..]].concat())
    };
    let end = |name: &str| {
        room.output(&["ctr", "task", "rm", "--force", name])?;
        room.output(&["ctr", "container", "rm", name])
    };
    start(&[], "open")?;
    assert_open(&probe("open")?)?;
    end("open")?;
    start(&["--runc-binary", "/usr/local/bin/qfence-runc"], "fenced")?;
    assert_fenced(&probe("fenced")?)?;
    room.kill("containerd")?;
    drop(containerd);
    assert_eq!(state(&scene)?, "detached");
    let _containerd = room.start_containerd()?;
    assert_fenced(&probe("fenced")?)?;
    end("fenced")?;
    scene.assert_nothing_left()
}

/// libvirt calls no hook while libvirtd does not run. The next libvirtd sees that the guest is gone, and calls it.
#[test]
fn a_guest_that_ends_while_libvirtd_is_gone_leaves_nothing() -> Result<()> {
    let (scene, libvirtd) = libvirt::scene()?;
    let room = &scene.room;
    let guest = libvirt::start(&scene, libvirt::FENCE, "<interface type='user'/>")?;
    room.kill("libvirtd")?;
    drop(libvirtd);
    assert_eq!(state(&scene)?, "detached");
    room.kill("qemu-system-x86")?;
    drop(guest);
    // The partition is still there, and so is the fence on it.
    assert_eq!(state(&scene)?, "detached");
    let libvirtd = room.start_libvirtd()?;
    wait_until("the fence is removed", || Ok(state(&scene)?.is_empty()))?;
    scene.assert_nothing_left()?;

    // A fence on the guest's own cgroup outlives libvirtd, and ends with that cgroup.
    let guest = libvirt::start(&scene, "", "<interface type='user'/>")?;
    let attach = "qfence-user attach --domain vm-1 --detach --name later";
    room.output(&attach.split(' ').collect::<Vec<_>>())?;
    room.stop("libvirtd")?;
    drop(libvirtd);
    assert_eq!(state(&scene)?, "detached");
    let libvirtd = room.start_libvirtd()?;
    await_running(&scene)?;
    room.kill("libvirtd")?;
    drop(libvirtd);
    let _libvirtd = room.start_libvirtd()?;
    await_running(&scene)?;
    // libvirt takes the first device program of the cgroup for its own when it finds the guest.
    for step in ["suspend", "resume"] {
        room.output(&["virsh", step, "vm-1"])?;
    }
    assert_eq!(state(&scene)?, "detached");
    room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}

fn await_running(scene: &Scene) -> Result<()> {
    let domstate = ["virsh", "domstate", "vm-1"];
    let found = wait_until("libvirtd has found the guest", || {
        Ok(scene.room.run(&domstate)?.stdout.trim() == "running")
    });
    found.context("the guest does not run")
}
