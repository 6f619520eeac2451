//! libvirt calls the hook of contrib/libvirt for its domains. The guests are real, under emulation.

use anyhow::{Result, ensure};
use tests::{
    dns::Dns,
    engines::{Control, Room},
    probe::{self, ProbeResult},
    process::Process,
    run::{Ended, wait_until},
    world::{HOST_V4, SERVER_V4},
};

use super::{PORT, Scene, followed::Followed};

/// What asks for a fence, and the partition that it needs.
pub(super) const FENCE: &str = "<metadata>
    <qfence:fence xmlns:qfence='urn:qfence:libvirt:1' profile='internet-only'/>
  </metadata>
  <resource><partition>/machine/vm-1</partition></resource>";

/// Arguments of QEMU that ask for a tap device.
const ARGUMENTS: &str = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <qemu:arg value='-netdev'/><qemu:arg value='tap,id=n,ifname=tap9,script=no,downscript=no'/>
  </qemu:commandline>";

/// A network card behind QEMU's user network, and one in the bridge of libvirt's default network.
const INTERFACES: &str = "<interface type='user'><model type='virtio'/></interface>
  <interface type='network'><source network='default'/><model type='virtio'/></interface>";

/// Lets the guest use its second network card alone.
const USE_BRIDGE: &str = "ip link set eth0 down; ip link set eth1 up; ip addr add 192.168.122.15/24 dev eth1; \
                          ip route add default via 192.168.122.1";

pub(super) fn scene() -> Result<(Scene, Process)> {
    let scene = Scene::with(Room::with_libvirt)?;
    let qemu = include_str!("../../../contrib/libvirt/hooks/qemu");
    let network = include_str!("../../../contrib/libvirt/hooks/network");
    for (name, hook) in [("qemu", qemu), ("network", network)] {
        let path = format!("/etc/libvirt/hooks/{name}");
        scene.room.write(&path, hook)?;
        scene.room.output(&["chmod", "755", &path])?;
    }
    let libvirtd = scene.room.start_libvirtd()?;
    Ok((scene, libvirtd))
}

/// Starts a domain, whose elements are `elements`.
pub(super) fn create(scene: &Scene, elements: &str, interfaces: &str) -> Result<Ended> {
    let xml = scene.room.domain("vm-1", elements, interfaces)?;
    scene.room.write("/root/vm-1.xml", &xml)?;
    scene.room.run(&["virsh", "create", "/root/vm-1.xml"])
}

/// Starts a domain, which must succeed. Returns what controls the guest.
pub(super) fn start(scene: &Scene, elements: &str, interfaces: &str) -> Result<Control> {
    let guest = scene.room.control("vm-1")?;
    let created = create(scene, elements, interfaces)?;
    ensure!(created.code() == Some(0), "{created:?}");
    Ok(guest)
}

/// Tries an address of the host, the host as the guest's gateway, and the internet, in the guest.
fn attempt(guest: &mut Control, gateway: &str) -> Result<Vec<ProbeResult>> {
    let attempts = [
        format!("tcp/{HOST_V4}/{PORT}"),
        format!("udp/{HOST_V4}/{PORT}"),
        format!("tcp/{gateway}/{PORT}"),
        format!("udp/{gateway}/{PORT}"),
        format!("tcp/{SERVER_V4}/{PORT}"),
        format!("udp/{SERVER_V4}/{PORT}"),
    ];
    guest.probe(&attempts.each_ref().map(String::as_str))
}

/// The guest reaches the internet, and nothing of the host.
fn assert_fenced(scene: &Scene, guest: &mut Control, gateway: &str) -> Result<()> {
    let before = scene.arrived();
    let results = attempt(guest, gateway)?;
    for refused in &results[..4] {
        assert!(!refused.is_reached(), "{gateway}: {refused:?}");
    }
    for reached in &results[4..] {
        assert!(reached.is_reached(), "{gateway}: {reached:?}");
    }
    assert_eq!(scene.arrived(), (before.0, before.1 + 2), "{gateway}");
    Ok(())
}

/// Services of the guest answer to the host, in libvirt's default network.
fn assert_answers(scene: &Scene, guest: &mut Control) -> Result<()> {
    guest.shell(
        "probe --serve tcp/9000 udp/9000 >/tmp/serve 2>&1 & \
         until grep -q serving /tmp/serve; do kill -0 $! || exit 1; sleep 0.05; done",
    )?;
    for protocol in ["tcp", "udp"] {
        let attempt = format!("{protocol}/192.168.122.15/9000");
        let results = probe::run(&scene.world.host, &[&attempt])?;
        assert!(results[0].says("hello from the probe"), "{results:?}");
    }
    Ok(())
}

#[test]
fn a_guest_is_fenced_at_its_user_network_and_at_its_tap_device() -> Result<()> {
    let (scene, libvirtd) = scene()?;
    let _dns = Dns::start(
        &scene.world.internet,
        SERVER_V4,
        &[("www.example", SERVER_V4)],
    )?;
    let room = &scene.room;
    room.output(&[
        "virsh",
        "net-define",
        "/usr/share/libvirt/networks/default.xml",
    ])?;
    room.output(&["virsh", "net-start", "default"])?;
    let mut guest = start(&scene, FENCE, INTERFACES)?;
    let fences = scene.fences()?;
    for words in ["\"domain vm-1\"", "\"machine/vm-1.partition\"", "\"vnet0\""] {
        assert!(fences.contains(words), "{words}: {fences}");
    }
    guest.await_boot()?;
    assert_fenced(&scene, &mut guest, "10.0.2.2")?;
    let resolved = guest.probe(&["dns/10.0.2.3/www.example"])?;
    assert!(resolved[0].is_reached(), "{resolved:?}");

    // The fence does not depend on libvirtd, and the guest survives it.
    room.kill("libvirtd")?;
    drop(libvirtd);
    let _libvirtd = room.start_libvirtd()?;
    wait_until("libvirtd has found the guest", || {
        Ok(room.output(&["virsh", "domstate", "vm-1"])?.trim() == "running")
    })?;
    room.output(&["virsh", "suspend", "vm-1"])?;
    room.output(&["virsh", "resume", "vm-1"])?;
    guest.shell(USE_BRIDGE)?;
    assert_fenced(&scene, &mut guest, "192.168.122.1")?;
    let resolved = guest.probe(&["dns/192.168.122.1/www.example"])?;
    assert!(resolved[0].is_reached(), "{resolved:?}");
    assert_answers(&scene, &mut guest)?;

    // What is added now would not be seen.
    let add = [
        "virsh",
        "attach-interface",
        "vm-1",
        "network",
        "default",
        "--live",
    ];
    let added = room.run(&add)?;
    assert_ne!(added.code(), Some(0), "{added:?}");
    let words = "runs in the fence vm-1, which does not see";
    assert!(added.stderr.contains(words), "{added:?}");
    let interfaces = || room.output(&["virsh", "domiflist", "vm-1"]);
    assert_eq!(
        interfaces()?.matches("default").count(),
        1,
        "{}",
        interfaces()?
    );

    // The control: without the fence, the same guest reaches the host by both.
    room.output(&["qfence-user", "rm", "vm-1"])?;
    for result in attempt(&mut guest, "192.168.122.1")? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    guest.shell("ip link set eth1 down; ip link set eth0 up; ip route add default via 10.0.2.2")?;
    for result in attempt(&mut guest, "10.0.2.2")? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    // At the hook `reconnect`, a missing fence is reported, and the guest goes on.
    let words = ["vm-1", "reconnect", "begin", "-"];
    room.output(&add)?;
    assert_eq!(interfaces()?.matches("default").count(), 2, "control");
    let hook = |words: &[&str]| {
        let command = format!(
            "virsh dumpxml vm-1 | /etc/libvirt/hooks/qemu {}",
            words.join(" ")
        );
        room.run(&["sh", "-c", &command])
    };
    let reconnected = hook(&words)?;
    assert_eq!(reconnected.code(), Some(0), "{reconnected:?}");
    assert!(reconnected.stderr.contains("NOT FENCED"), "{reconnected:?}");
    let started = hook(&["vm-1", "started", "begin", "-"])?;
    assert_eq!(started.code(), Some(125), "{started:?}");
    room.output(&["virsh", "destroy", "vm-1"])?;
    scene.assert_nothing_left()
}

#[test]
fn a_guest_whose_hook_fails_does_not_start() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    let user = "<interface type='user'/>";
    let sharing = FENCE.replace("/machine/vm-1", "/machine");
    let nonsense = FENCE.replace("internet-only", "nonsense");
    let misspelt = FENCE.replace("profile=", "profiel=");
    let vhost = "<vsock model='virtio'><cid auto='yes'/></vsock>";
    for (elements, interfaces, words) in [
        (&sharing, user, "which domains share"),
        (&nonsense, user, "nonsense"),
        (&misspelt, user, "there is no \"profiel\""),
        (&FENCE.to_owned(), vhost, "a vsock device"),
        (
            &format!("{FENCE}{ARGUMENTS}"),
            user,
            "in <qemu:commandline>, ",
        ),
    ] {
        let guest = scene.room.control("vm-1")?;
        let created = create(&scene, elements, interfaces)?;
        assert_ne!(created.code(), Some(0), "{created:?}");
        assert!(created.stderr.contains(words), "{words}: {created:?}");
        scene.assert_nothing_left()?;
        assert!(!guest.has_started()?, "{words}: QEMU was started");
    }
    // The control: without the error it starts, and by a file as well as by its metadata. The end does not depend on either.
    let partition = "<resource><partition>/machine/vm-1</partition></resource>";
    for elements in [FENCE, partition] {
        let guest = start(&scene, elements, user)?;
        assert!(guest.has_started()?, "control");
        assert!(scene.fences()?.contains("\"domain vm-1\""), "{elements}");
        let file = "/etc/qfence/domains.d/vm-1.toml";
        scene.room.write(file, "nonsense")?;
        if elements == FENCE {
            scene.room.output(&["virsh", "destroy", "vm-1"])?;
        } else {
            scene.room.kill("qemu-system-x86")?;
            wait_until("libvirt has seen the end of the guest", || {
                Ok(scene.room.run(&["virsh", "domstate", "vm-1"])?.code() != Some(0))
            })?;
        }
        scene.assert_nothing_left()?;
        scene.room.write(file, "profile = \"internet-only\"\n")?;
    }
    Ok(())
}

#[test]
fn a_guest_that_asks_for_no_fence_has_none() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    let guest = start(&scene, "", "<interface type='user'/>")?;
    assert_eq!(scene.fences()?.trim(), "[]");
    // It can be fenced while it runs, but for devices: libvirt has that hook of its cgroup alone.
    let attach = ["qfence-user", "attach", "--domain", "vm-1", "--detach"];
    let attached = scene.room.run(&attach)?;
    assert_eq!(attached.code(), Some(0), "{attached:?}");
    let words = "another program judges the devices of this cgroup alone";
    assert!(attached.stderr.contains(words), "{attached:?}");
    let fences = scene.fences()?;
    for words in ["\"domain vm-1\"", "\"vm-1-"] {
        assert!(fences.contains(words), "{words}: {fences}");
    }
    let listed: serde_json::Value = serde_json::from_str(&fences)?;
    let open = listed[0]["open"].to_string();
    assert!(open.contains("\"devices\""), "{open}");
    scene.room.output(&["virsh", "suspend", "vm-1"])?;
    scene.room.output(&["virsh", "resume", "vm-1"])?;
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    // QEMU's connection to the test is a socket of the fence as long as it waits for accept().
    drop(guest);
    scene.assert_nothing_left()
}

#[test]
fn a_guest_is_fenced_again_when_it_is_started_anew() -> Result<()> {
    let (scene, _libvirtd) = scene()?;
    let user = "<interface type='user'><model type='virtio'/></interface>";
    let start = || start(&scene, "", user);
    let mut guest = start()?;
    guest.await_boot()?;
    for result in attempt(&mut guest, "10.0.2.2")? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    let mut followed = Followed::start(&scene, "--domain vm-1")?;
    followed.in_force(1)?;
    assert_fenced(&scene, &mut guest, "10.0.2.2")?;
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    followed.is_over()?;
    let mut guest = start()?;
    followed.in_force(2)?;
    guest.await_boot()?;
    assert_fenced(&scene, &mut guest, "10.0.2.2")?;
    followed.end()?;
    for result in attempt(&mut guest, "10.0.2.2")? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    scene.room.output(&["virsh", "destroy", "vm-1"])?;
    drop(guest);
    scene.assert_nothing_left()
}
