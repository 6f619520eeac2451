//! Network interfaces that libvirt adds to a guest while it runs.

use anyhow::Result;
use tests::run::wait_until;

use super::{
    PORT, Scene, SystemLog,
    libvirt::{FENCE, scene, start},
};

/// A bridge of the host, its address, and that of the guest in it.
const BRIDGE: &str = "br-added";
const HOST: &str = "10.99.7.1";
const GUEST: &str = "10.99.7.2";

/// Interfaces whose devices libvirt opens without a hook. A macvtap device has a node in /dev, which udev makes: there is
/// none here.
const INTERFACES: [&str; 2] = [
    "<interface type='bridge'><source bridge='br-added'/><model type='virtio'/></interface>",
    "<interface type='ethernet'><model type='virtio'/></interface>",
];

/// An interface for which libvirt calls its hook `network`.
const NETWORK: &str =
    "<interface type='network'><source network='default'/><model type='virtio'/></interface>";

/// Adds an interface to the guest that runs. Returns what virsh says if that failed.
fn add(scene: &Scene, interface: &str) -> Result<Result<(), String>> {
    scene.room.write("/root/added.xml", interface)?;
    let attach = [
        "virsh",
        "attach-device",
        "vm-1",
        "/root/added.xml",
        "--live",
    ];
    let ended = scene.room.run(&attach)?;
    Ok(match ended.code() {
        Some(0) => Ok(()),
        _ => Err(ended.stderr),
    })
}

/// The tap devices of the host.
fn devices(scene: &Scene) -> Result<usize> {
    let list = ["ip", "-o", "link", "show", "type", "tun"];
    Ok(scene.room.output(&list)?.lines().count())
}

/// The interfaces of the guest that are tap devices.
fn interfaces(scene: &Scene) -> Result<usize> {
    let shown = scene.room.output(&["virsh", "domiflist", "vm-1"])?;
    let kinds = ["bridge", "ethernet"];
    let is_added = |line: &&str| line.split_whitespace().any(|word| kinds.contains(&word));
    Ok(shown.lines().filter(is_added).count())
}

/// No interface can be added, and each attempt is on record.
fn assert_refused(scene: &Scene, fence: &str) -> Result<()> {
    for interface in INTERFACES {
        let added = add(scene, interface)?;
        assert!(added.is_err(), "{interface}");
        assert_eq!(interfaces(scene)?, 0, "{interface}");
        wait_until(
            "libvirt has removed the device",
            || Ok(devices(scene)? == 0),
        )?;
    }
    let logs = scene
        .room
        .output(&["qfence-user", "logs", fence, "--json"])?;
    for device in ["/dev/net/tun", "file_receive", "deny-device"] {
        assert!(logs.contains(device), "{device}: {logs}");
    }
    let state = scene.room.output(&["virsh", "domstate", "vm-1"])?;
    assert_eq!(state.trim(), "running");
    Ok(())
}

/// Where the kernel cannot refuse them, `ps` names those that are added.
fn assert_shown(scene: &Scene) -> Result<()> {
    let fences = scene.fences()?;
    assert!(!fences.contains("\"state\":\"unfenced\""), "{fences}");
    for (number, interface) in (1..).zip(INTERFACES) {
        assert_eq!(add(scene, interface)?, Ok(()), "{interface}");
        let fences: serde_json::Value = serde_json::from_str(&scene.fences()?)?;
        let shown = &fences[0]["unfenced_devices"];
        let count = shown.as_array().map_or(0, Vec::len);
        assert_eq!(count, number, "{interface}: {fences}");
        assert_eq!(fences[0]["state"], "unfenced", "{fences}");
    }
    let shown = scene.room.output(&["qfence-user", "ps"])?;
    let words = "was added to the running guest, and 1 more)";
    assert!(shown.contains(words), "{shown}");
    Ok(())
}

/// What is added is refused, or shown if the kernel cannot refuse it.
fn assert_refused_or_shown(scene: &Scene, fence: &str) -> Result<bool> {
    let is_refused = !scene.fences()?.contains("\"hotplug\"");
    match is_refused {
        true => assert_refused(scene, fence)?,
        false => assert_shown(scene)?,
    }
    Ok(is_refused)
}

fn bridge(scene: &Scene) -> Result<()> {
    let commands = format!(
        "ip link add {BRIDGE} type bridge && ip addr add {HOST}/24 dev {BRIDGE} && ip link set {BRIDGE} up"
    );
    scene.room.output(&["sh", "-c", &commands]).map(drop)
}

#[test]
fn what_is_added_to_a_guest_that_runs_in_a_fence_is_refused_or_shown() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    bridge(&scene)?;
    let log = SystemLog::listen(&scene)?;
    let mut guest = start(&scene, FENCE, "")?;
    let warned = log.messages();
    guest.await_boot()?;
    let is_refused = assert_refused_or_shown(&scene, "vm-1")?;
    assert_eq!(
        is_refused,
        !warned.contains("will NOT be FENCED"),
        "{warned}"
    );

    // The control: without the fence each is added, and the guest reaches the host by the first one.
    scene.room.output(&["qfence-user", "rm", "vm-1"])?;
    if is_refused {
        for interface in INTERFACES {
            assert_eq!(add(&scene, interface)?, Ok(()), "control: {interface}");
            assert!(devices(&scene)? > 0, "control: {interface}");
        }
    }
    assert_eq!(interfaces(&scene)?, INTERFACES.len(), "control");
    guest.shell("until ip link show eth0; do sleep 0.1; done >/dev/null 2>&1")?;
    guest.shell(&format!(
        "ip link set eth0 up; ip addr add {GUEST}/24 dev eth0"
    ))?;
    let reached = guest.probe(&[&format!("tcp/{HOST}/{PORT}")])?;
    assert!(reached[0].is_reached(), "control: {reached:?}");
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}

#[test]
fn what_is_added_to_a_guest_that_was_fenced_later_is_refused_or_shown() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    bridge(&scene)?;
    let guest = start(&scene, "", "")?;
    let attach = |options: &[&str]| {
        let attach = ["qfence-user", "attach", "--domain", "vm-1", "--detach"];
        let named = ["--name", "later"];
        let attached = scene.room.run(&[&attach[..], &named, options].concat())?;
        assert_eq!(attached.code(), Some(0), "{attached:?}");
        anyhow::Ok(attached.stderr.contains("will NOT be FENCED"))
    };
    let warned = attach(&[])?;
    let is_refused = assert_refused_or_shown(&scene, "later")?;
    assert_eq!(is_refused, !warned);
    // The control: an option allows it, without a word of what was added.
    scene.room.output(&["qfence-user", "rm", "later"])?;
    assert!(!attach(&["--allow-unfenced-net"])?);
    if is_refused {
        for interface in INTERFACES {
            assert_eq!(add(&scene, interface)?, Ok(()), "control: {interface}");
        }
    }
    let fences = scene.fences()?;
    assert!(!fences.contains("\"state\":\"unfenced\""), "{fences}");
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}

/// Monitor mode lets pass what is added. `ps` shows it, after monitor mode too: the guest still has it.
#[test]
fn what_is_added_in_monitor_mode_is_shown() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    bridge(&scene)?;
    let guest = start(&scene, "", "")?;
    let qfence = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        let ended = scene.room.run(&[&["qfence-user"], &words[..]].concat())?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        anyhow::Ok(())
    };
    qfence("attach --domain vm-1 --name watched --detach --monitor")?;
    assert_shown(&scene)?;
    qfence("set watched --enforce")?;
    let fences: serde_json::Value = serde_json::from_str(&scene.fences()?)?;
    assert_eq!(fences[0]["monitor"], false, "{fences}");
    assert_eq!(fences[0]["state"], "unfenced", "{fences}");
    qfence("rm watched")?;
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}

/// The hook `network` lets an interface pass that the fence has. One that was detached is no longer among them.
#[test]
fn an_interface_that_was_detached_is_refused_when_it_is_added_again() -> Result<()> {
    const MAC: &str = "52:54:00:00:07:01";
    let (scene, _libvirtd) = scene()?;
    let room = &scene.room;
    let definition = "/usr/share/libvirt/networks/default.xml";
    room.output(&["virsh", "net-define", definition])?;
    room.output(&["virsh", "net-start", "default"])?;
    let interface = NETWORK.replace("<source", &format!("<mac address='{MAC}'/><source"));
    let mut guest = start(&scene, FENCE, &interface)?;
    let fences: serde_json::Value = serde_json::from_str(&scene.fences()?)?;
    assert_eq!(fences[0]["devices"], serde_json::json!(["vnet0"]));
    // The guest takes part in removing a device.
    guest.await_boot()?;
    let detach = [
        "virsh",
        "detach-interface",
        "vm-1",
        "network",
        "--mac",
        MAC,
        "--live",
    ];
    room.output(&detach)?;
    wait_until("the device is gone", || Ok(devices(&scene)? == 0))?;
    let refused = add(&scene, &interface)?.expect_err("it was added");
    let words = "vm-1 runs in the fence vm-1, which does not see";
    assert!(refused.contains(words), "{refused}");
    assert_eq!(devices(&scene)?, 0);

    // The control: without the fence it is added.
    room.output(&["qfence-user", "rm", "vm-1"])?;
    assert_eq!(add(&scene, &interface)?, Ok(()), "control");
    assert_eq!(devices(&scene)?, 1, "control");
    room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}

/// The hook `network` looks up the fence of a guest by its description. Without one, it asks the programs.
#[test]
fn a_fence_whose_description_cannot_be_read_still_refuses_what_is_added() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    let room = &scene.room;
    let definition = "/usr/share/libvirt/networks/default.xml";
    room.output(&["virsh", "net-define", definition])?;
    room.output(&["virsh", "net-start", "default"])?;
    let guest = start(&scene, "", "")?;
    let qfence = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        room.output(&[&["qfence-user"], &words[..]].concat())
    };
    // Returns the description.
    let spoil = |fence: &str| {
        let path = format!("/run/qfence/{fence}.json");
        let description = room.output(&["cat", &path])?;
        room.write(&path, "nonsense")?;
        anyhow::Ok((path, description))
    };
    let restore = |(path, description): (String, String)| room.write(&path, &description);

    // The control: a fence that does not judge the guest does not matter.
    room.output(&["mkdir", "/sys/fs/cgroup/other"])?;
    qfence("attach --cgroup other --name other --detach")?;
    let other = spoil("other")?;
    assert_eq!(add(&scene, NETWORK)?, Ok(()), "control");

    qfence("attach --domain vm-1 --name later --detach --allow-unfenced-net")?;
    let later = spoil("later")?;
    let refused = add(&scene, NETWORK)?.expect_err("it was added");
    let words = "vm-1 runs in the fence later, which does not see";
    assert!(refused.contains(words), "{refused}");

    // The control: without the fence it is added.
    restore(later)?;
    qfence("rm later")?;
    assert_eq!(add(&scene, NETWORK)?, Ok(()), "control");
    restore(other)?;
    qfence("rm other")?;
    room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}
