//! `attach --device`: a fence around what is behind a network device, with or without processes of this host.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    fence::Fence,
    listener::Listeners,
    remains,
    run::wait_until,
    world::{HOST_V4, SERVER_V4, World},
};

use super::{
    netns::{GATEWAY, PORT, Pod, attempt},
    scene::{Attached, Place, attach, left, listed, remove},
};

/// This host's end of the wire to a workload in a network namespace of its own.
const DEVICE: &str = "pod0";

/// A workload that no fence holds by its cgroup, and the services that it reaches.
struct Guest {
    pod: Pod,
    host: Listeners,
    _internet: Listeners,
}

impl Guest {
    fn new(label: &str) -> Result<Self> {
        let pod = Pod::new(label)?;
        Ok(Self {
            host: Listeners::everywhere(&pod.world.host, PORT)?,
            _internet: Listeners::everywhere(&pod.world.internet, PORT)?,
            pod,
        })
    }

    /// Whether it reaches this host: everything or nothing, and the internet in any case.
    fn reaches_host(&mut self) -> Result<bool> {
        let before = self.host.arrivals().len();
        let (node, internet) = (HOST_V4.to_string(), SERVER_V4.to_string());
        let outside = attempt(&mut self.pod.shell, &[&internet])?;
        ensure!(outside.iter().all(|one| one.is_reached()), "{outside:?}");
        let results = attempt(&mut self.pod.shell, &[GATEWAY, &node])?;
        let reached = results.iter().filter(|one| one.is_reached()).count();
        ensure!(reached == 0 || reached == results.len(), "{results:?}");
        ensure!(
            self.host.arrivals().len() == before + reached,
            "{results:?}"
        );
        Ok(reached > 0)
    }

    fn assert_nothing_left(&self) -> Result<()> {
        assert_eq!(left(&self.pod.fence), Vec::<std::path::PathBuf>::new());
        remains::ensure_none(self.pod.fence.name())
    }
}

#[test]
fn a_device_is_fenced_until_its_supervisor_ends() -> Result<()> {
    let mut guest = Guest::new("attach-device")?;
    assert!(guest.reaches_host()?, "control");
    let host = guest.pod.world.host.clone();
    let mut attached = Attached::start(&guest.pod.fence, &host, &["--device", DEVICE])?;
    assert!(!guest.reaches_host()?);
    let recorded = guest
        .pod
        .fence
        .await_refusal(|refusal| refusal.port == PORT)?;
    assert_eq!(recorded.hook, "frame", "{recorded:?}");
    let row = listed(&guest.pod.fence)?;
    assert_eq!(row["state"], "running", "{row}");
    assert_eq!(row["devices"], serde_json::json!([DEVICE]), "{row}");

    // It stays fenced under another name.
    host.ip("link set pod0 down")?;
    host.ip("link set pod0 name pod9")?;
    wait_until("the new name is followed", || {
        Ok(listed(&guest.pod.fence)?["devices"] == serde_json::json!(["pod9"]))
    })?;
    host.ip("link set pod9 name pod0")?;
    host.ip("link set pod0 up")?;
    assert!(!guest.reaches_host()?);

    attached.signal(Signal::SIGINT)?;
    attached.ensure_success()?;
    guest.assert_nothing_left()?;
    assert!(guest.reaches_host()?, "it is let go");
    Ok(())
}

/// A fence that has only a device stays without a supervisor, and other commands leave it alone.
#[test]
fn a_device_stays_fenced_without_a_supervisor() -> Result<()> {
    let mut guest = Guest::new("attach-device-left")?;
    let host = guest.pod.world.host.clone();
    for state in ["detached", "orphaned"] {
        let words = ["--device", DEVICE];
        if state == "detached" {
            let ended = attach(
                &guest.pod.fence,
                &host,
                &[&words[..], &["--detach"]].concat(),
            )?;
            assert_eq!(ended.code(), Some(0), "{ended:?}");
        } else {
            let mut attached = Attached::start(&guest.pod.fence, &host, &words)?;
            attached.signal(Signal::SIGKILL)?;
            attached.wait()?;
        }
        // `ps` clears what is dead.
        for _ in 0..2 {
            let row = listed(&guest.pod.fence)?;
            assert_eq!(row["state"], state, "{row}");
        }
        assert!(!guest.reaches_host()?, "{state}");
        remove(&guest.pod.fence)?;
        guest.assert_nothing_left()?;
        assert!(guest.reaches_host()?, "{state}: it is let go");
    }
    Ok(())
}

/// The processes of a cgroup and a device are one fence.
#[test]
fn a_device_can_be_fenced_with_a_cgroup() -> Result<()> {
    let mut guest = Guest::new("attach-both")?;
    let host = guest.pod.world.host.clone();
    let mut beside = guest.pod.beside()?;
    let path = guest.pod.place.path().display().to_string();
    let words = ["--cgroup", &path, "--device", DEVICE];
    let mut attached = Attached::start(&guest.pod.fence, &host, &words)?;
    let own = attempt(&mut guest.pod.shell, &[GATEWAY])?;
    assert!(
        own.iter().all(|one| one.failed_with("ECONNREFUSED")),
        "{own:?}"
    );
    // What is behind the device and not in the cgroup.
    let others = attempt(&mut beside, &[GATEWAY])?;
    assert!(!others.iter().any(|one| one.is_reached()), "{others:?}");
    // Two fences cannot have one device.
    let other = Fence::new("attach-second")?;
    let ended = attach(&other, &host, &["--device", DEVICE])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(ended.stderr.contains("is of the fence"), "{ended:?}");
    assert_eq!(left(&other), Vec::<std::path::PathBuf>::new());
    remains::ensure_none(other.name())?;

    remove(&guest.pod.fence)?;
    attached.ensure_success()?;
    assert_eq!(left(&guest.pod.fence), Vec::<std::path::PathBuf>::new());
    assert!(guest.reaches_host()?, "both are let go");
    Ok(())
}

/// Opens a tap device, as QEMU does, says so, and waits.
const HOLD_TAP: &str = "import fcntl, struct, sys, time
tap = open('/dev/net/tun', 'r+b', buffering=0)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
print('open', flush=True)
time.sleep(1000)";

/// A process that has a tap device open is admitted if that device is fenced, and no other.
#[test]
fn a_target_with_a_tap_is_admitted_if_the_tap_is_fenced() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("attach-tap")?;
    let place = Place::new(&fence)?;
    for name in ["qtap0", "qtap1"] {
        world.host_ip(&format!("tuntap add {name} mode tap"))?;
    }
    let mut shell = place.shell(&world.host)?;
    shell.tell(&format!("exec /usr/bin/python3 -c \"{HOLD_TAP}\" qtap0"))?;
    assert_eq!(shell.next_line()?, "open");
    let path = place.path().display().to_string();
    let target = ["--cgroup", &path, "--detach"];
    for options in [&[][..], &["--device", "qtap1"]] {
        let ended = attach(&fence, &world.host, &[&target[..], options].concat())?;
        assert_eq!(ended.code(), Some(125), "{options:?}: {ended:?}");
        let named = "is /dev/net/tun";
        assert!(ended.stderr.contains(named), "{options:?}: {ended:?}");
    }
    let words = [&target[..], &["--device", "qtap0"]].concat();
    let ended = attach(&fence, &world.host, &words)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(listed(&fence)?["devices"], serde_json::json!(["qtap0"]));
    remove(&fence)
}
