//! The fence's program for devices, and that of systemd for `DeviceAllow=`.

use anyhow::Result;
use tests::fence::qfence;

use super::{CGROUP, Scene, UNIT};

/// What systemd allows the unit, and what it does not. Both exist on the machine.
const UNIT_LINES: &str = "DevicePolicy=closed\nDeviceAllow=/dev/net/tun rw\nExecStart=sleep 1000\n";

const MAKE_DEVICES: &str = "mkdir -p /dev/net; mknod /dev/net/tun c 10 200; mknod /dev/kmsg c 1 11";

/// Whether a process in the cgroup of the unit may open a device.
fn opens(scene: &Scene, cgroup: &str, device: &str) -> Result<bool> {
    let procs = format!("/sys/fs/cgroup{cgroup}/cgroup.procs");
    let script = format!("echo $$ >{procs} && exec sh -c ': <{device}'");
    let ended = scene.run(&["sh", "-c", &script])?;
    let is_refused = ended.stderr.contains("Operation not permitted");
    assert!(ended.code() == Some(0) || is_refused, "{device}: {ended:?}");
    Ok(!is_refused)
}

/// What the two programs refuse: /dev/net/tun is the fence's, /dev/kmsg systemd's.
fn assert_refused(scene: &Scene, cgroup: &str, by_fence: bool, what: &str) -> Result<()> {
    let is_refused = |device| anyhow::Ok(!opens(scene, cgroup, device)?);
    assert_eq!(is_refused("/dev/net/tun")?, by_fence, "{what}: the fence's");
    assert!(is_refused("/dev/kmsg")?, "{what}: systemd's");
    assert!(!is_refused("/dev/null")?, "{what}: control");
    Ok(())
}

/// Has systemd attach its program anew in each way that it has.
fn assert_outlives(scene: &Scene, cgroup: &str) -> Result<()> {
    assert_refused(scene, cgroup, true, "attached")?;
    let property = ["systemctl", "set-property", "--runtime", UNIT];
    scene.output(&[&property[..], &["DeviceAllow=/dev/tty rw"]].concat())?;
    assert_refused(scene, cgroup, true, "set-property")?;
    scene.output(&["systemctl", "daemon-reload"])?;
    assert_refused(scene, cgroup, true, "daemon-reload")?;
    scene.output(&["systemctl", "daemon-reexec"])?;
    assert_refused(scene, cgroup, true, "daemon-reexec")
}

#[test]
fn the_programs_of_systemd_and_of_the_fence_both_judge_devices() -> Result<()> {
    let scene = Scene::new()?;
    scene.output(&["sh", "-c", MAKE_DEVICES])?;
    scene.output(&["ln", "-s", &scene.program, "/usr/local/bin/qfence-user"])?;
    let qfence = qfence()?;
    let qfence = qfence.to_str().unwrap_or_default();
    let attach = |unit| {
        let words = [qfence, "attach", "--unit", unit, "--detach", "--name", "vm"];
        scene.output(&words)
    };

    // systemd's is first.
    scene.start(UNIT_LINES)?;
    assert_refused(&scene, CGROUP, false, "control")?;
    attach(UNIT)?;
    assert_outlives(&scene, CGROUP)?;
    scene.output(&[qfence, "rm", "vm"])?;
    assert_refused(&scene, CGROUP, false, "removed")?;
    scene.output(&["systemctl", "stop", UNIT])?;

    // The fence's is first: on the slice, and by a drop-in.
    scene.output(&["systemctl", "start", "vms.slice"])?;
    attach("vms.slice")?;
    scene.start(&format!("Slice=vms.slice\n{UNIT_LINES}"))?;
    assert_outlives(&scene, &format!("/vms.slice/{UNIT}"))?;
    scene.output(&["systemctl", "stop", UNIT])?;
    scene.output(&[qfence, "rm", "vm"])?;

    let drop_in = format!("/etc/systemd/system/{UNIT}.d/qfence.conf");
    scene.install("qfence-unit.conf", &drop_in)?;
    scene.start(UNIT_LINES)?;
    assert_outlives(&scene, CGROUP)?;
    scene.output(&["systemctl", "stop", UNIT])?;
    scene.await_nothing()?;
    scene.machine.end()
}
