//! The device programs of real engines and that of a fence judge together, whichever is first.

use anyhow::{Context as _, Result, ensure};
use tests::engines::{CRUN, IMAGE};

use super::{FOR_EVER, Scene, docker, libvirt, lxc, podman};

/// Opens /dev/net/tun, which fences refuse, /dev/fuse, which engines refuse, and /dev/null.
const OPEN: &str = "for numbers in '10 200' '10 229' '1 3'; do
    /bin/busybox rm -f /node
    /bin/busybox mknod /node c $numbers || exit
    if ( : </node ) 2>/dev/null; then echo open; else echo refused; fi
done";

/// What opens where only the engine judges, where the fence does too, and where only the fence does.
const ENGINE: [&str; 3] = ["open", "refused", "open"];
const BOTH: [&str; 3] = ["refused", "refused", "open"];
const FENCE: [&str; 3] = ["refused", "open", "open"];

/// An engine's words that allow /dev/fuse.
const FUSE: [&str; 2] = ["--device-cgroup-rule", "c 10:229 rwm"];

/// Asserts what opens in a container. `exec` are the words that run a command there.
fn assert_opens(scene: &Scene, exec: &[&str], expected: [&str; 3], what: &str) -> Result<()> {
    let found = scene
        .room
        .output(&[exec, &["/bin/sh", "-c", OPEN]].concat())?;
    let found: Vec<_> = found.lines().collect();
    assert_eq!(found, expected, "{exec:?}: {what}");
    Ok(())
}

/// A container that has no fence, of an engine that is called by `engine`, is fenced while it runs.
fn engine_first(scene: &Scene, engine: &[&str], runtime: &[&str]) -> Result<()> {
    let exec = [&engine[..1], &["exec", "web"]].concat();
    let allowed = [&FUSE[..], runtime].concat();
    for (options, without, with) in [
        (runtime, ENGINE, BOTH),
        // The control: it is the engine that refuses /dev/fuse.
        (&allowed[..], ["open"; 3], FENCE),
    ] {
        start(scene, engine, options)?;
        assert_opens(scene, &exec, without, "control")?;
        let attach = "qfence-user attach --detach --name f --container web";
        scene.room.output(&attach.split(' ').collect::<Vec<_>>())?;
        assert_opens(scene, &exec, with, "attached")?;
        outlives(scene, engine[0], &exec, with)?;
        scene.room.output(&["qfence-user", "rm", "f"])?;
        assert_opens(scene, &exec, without, "removed")?;
        remove(scene, engine[0])?;
    }
    Ok(())
}

/// A container is fenced by its start.
fn fence_first(scene: &Scene, engine: &[&str], fenced: &[&str]) -> Result<()> {
    let exec = [&engine[..1], &["exec", "web"]].concat();
    let allowed = [&FUSE[..], fenced].concat();
    for (options, expected) in [(fenced, BOTH), (&allowed[..], FENCE)] {
        start(scene, engine, options)?;
        assert_opens(scene, &exec, expected, "started")?;
        outlives(scene, engine[0], &exec, expected)?;
        scene.room.output(&[engine[0], "kill", "web"])?;
        scene.room.output(&[engine[0], "wait", "web"])?;
        scene.room.output(&[engine[0], "start", "web"])?;
        assert_opens(scene, &exec, expected, "started again")?;
        remove(scene, engine[0])?;
    }
    scene.assert_nothing_left()
}

/// Starts the container `web`, which may make nodes of devices. Docker's may open /dev/net/tun anyway.
fn start(scene: &Scene, engine: &[&str], options: &[&str]) -> Result<()> {
    let run = ["run", "--detach", "--name", "web", "--cap-add", "MKNOD"];
    let tun = ["--device-cgroup-rule", "c 10:200 rwm"];
    let words = [engine, &run, &tun, options, &[IMAGE], &FOR_EVER].concat();
    scene.room.output(&words).map(drop)
}

/// The engine changes the cgroup of the container that runs.
fn outlives(scene: &Scene, engine: &str, exec: &[&str], expected: [&str; 3]) -> Result<()> {
    for step in ["pause", "unpause"] {
        scene.room.output(&[engine, step, "web"])?;
    }
    assert_opens(scene, exec, expected, "paused and resumed")
}

fn remove(scene: &Scene, engine: &str) -> Result<()> {
    scene.room.output(&[engine, "kill", "web"])?;
    scene
        .room
        .output(&[engine, "rm", "--force", "web"])
        .map(drop)
}

#[test]
fn the_programs_of_podman_and_of_the_fence_both_judge_devices() -> Result<()> {
    let scene = podman::scene()?;
    scene.room.make_crun()?;
    for runtime in ["runc", CRUN] {
        let engine = ["podman", "--runtime", runtime];
        engine_first(&scene, &engine, &[])?;
        fence_first(&scene, &engine, &["--annotation", "qfence=on"])?;
    }
    Ok(())
}

#[test]
fn the_programs_of_docker_and_of_the_fence_both_judge_devices() -> Result<()> {
    let (scene, _docker) = docker::scene()?;
    engine_first(&scene, &["docker"], &[])?;
    fence_first(&scene, &["docker"], &["--runtime", "qfence"])
}

/// The rules of a container of LXC, which allow /dev/net/tun and not /dev/fuse.
const RULES: &str = "lxc.cgroup2.devices.deny = a\n\
                     lxc.cgroup2.devices.allow = c *:* m\n\
                     lxc.cgroup2.devices.allow = c 1:* rwm\n\
                     lxc.cgroup2.devices.allow = c 5:* rwm\n\
                     lxc.cgroup2.devices.allow = c 136:* rwm\n\
                     lxc.cgroup2.devices.allow = c 10:200 rwm\n";

#[test]
fn the_programs_of_lxc_and_of_the_fence_both_judge_devices() -> Result<()> {
    let scene = lxc::scene()?;
    let exec = ["lxc-attach", "--name", "box", "--"];
    // LXC replaces its own program, and no other.
    let set = |fuse: &str| {
        let words = ["lxc-cgroup", "--name", "box", fuse, "c 10:229 rwm"];
        scene.room.output(&words).map(drop)
    };
    for is_fenced in [false, true] {
        let hook = if is_fenced { lxc::HOOK } else { "" };
        scene.room.configure_lxc(&format!("{RULES}{hook}"))?;
        lxc::start(&scene, &FOR_EVER)?;
        if !is_fenced {
            assert_opens(&scene, &exec, ENGINE, "control")?;
            let info = ["lxc-info", "--name", "box", "--pid", "--no-humanize"];
            let pid = scene.room.output(&info)?;
            let attach = ["qfence-user", "attach", "--detach", "--name", "box"];
            scene
                .room
                .output(&[&attach[..], &["--pid", pid.trim()]].concat())?;
        }
        assert_opens(&scene, &exec, BOTH, "fenced")?;
        for (rule, expected) in [("devices.allow", FENCE), ("devices.deny", BOTH)] {
            set(rule).with_context(|| lxc::log(&scene))?;
            assert_opens(&scene, &exec, expected, rule)?;
        }
        scene.room.output(&["qfence-user", "rm", "box"])?;
        assert_opens(&scene, &exec, ENGINE, "removed")?;
        let stop = ["lxc-stop", "--kill", "--name", "box"];
        scene.room.output(&stop)?;
        scene.assert_nothing_left()?;
    }
    Ok(())
}

/// libvirt's program lets no other be in its cgroup, and the kernel lets none be there beside another.
#[test]
fn a_guest_of_libvirt_does_not_start_in_a_cgroup_that_has_a_fence() -> Result<()> {
    let (scene, _libvirtd) = libvirt::scene()?;
    let user = "<interface type='user'/>";
    // The first guest's cgroup: libvirt counts guests.
    let place = "machine/qemu-1-vm-1.libvirt-qemu";
    let path = format!("/sys/fs/cgroup/{place}");
    scene.room.output(&["mkdir", "-p", &path])?;
    let attach = ["qfence-user", "attach", "--detach", "--name", "early"];
    scene
        .room
        .output(&[&attach[..], &["--cgroup", place]].concat())?;
    let guest = scene.room.control("vm-1")?;
    let created = libvirt::create(&scene, "", user)?;
    assert_ne!(created.code(), Some(0), "{created:?}");
    ensure!(!guest.has_started()?, "QEMU was started: {created:?}");
    drop(guest);
    // The control: with the fence above, it starts, and both judge.
    let _ = scene.room.run(&["qfence-user", "rm", "early"])?;
    let above = ["--cgroup", "machine", "--whole-cgroup"];
    let attached = scene.room.run(&[&attach[..], &above].concat())?;
    ensure!(attached.code() == Some(0), "{attached:?}");
    ensure!(
        !attached.stderr.contains("judges the devices"),
        "{attached:?}"
    );
    let guest = libvirt::start(&scene, "", user)?;
    ensure!(guest.has_started()?, "control");
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.room.output(&["qfence-user", "rm", "early"])?;
    scene.assert_nothing_left()
}
