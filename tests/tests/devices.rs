//! Devices that would give a guest a network beside QEMU's own sockets cannot be opened in the fence.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use anyhow::Result;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tests::{
    fence::Fence,
    run::{fenced, to_end},
    workspace,
};

/// Their nodes, as the kernel numbers them, and their usual paths.
const FORBIDDEN: [(u64, &str); 3] = [
    (200, "/dev/net/tun"),
    (238, "/dev/vhost-net"),
    (241, "/dev/vhost-vsock"),
];

/// Nodes that anybody may open, as far as their mode goes.
struct Nodes(tempfile::TempDir);

impl Nodes {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("qfence-devices-")
            .tempdir()?;
        workspace::make_readable(dir.path())?;
        let nodes = Self(dir);
        for (minor, _) in FORBIDDEN {
            let path = nodes.path(minor);
            mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(10, minor))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        }
        Ok(nodes)
    }

    fn path(&self, minor: u64) -> PathBuf {
        self.0.path().join(minor.to_string())
    }

    /// A command that opens a node for reading and writing, and says what comes of it.
    fn open(&self, minor: u64) -> [String; 3] {
        let script = format!(": <> {}", self.path(minor).display());
        ["sh".into(), "-c".into(), script]
    }
}

/// What the kernel says of a device that a program refuses. Without the fence it says something
/// else: it opens the device, or has no such driver.
const REFUSED: &str = "Operation not permitted";

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn forbidden_devices_are_refused_and_on_record() -> Result<()> {
    let nodes = Nodes::new()?;
    for (minor, path) in FORBIDDEN {
        let open = nodes.open(minor);
        let mut outside = Command::new(&open[0]);
        outside.args(&open[1..]);
        let control = to_end(outside)?;
        assert!(!control.stderr.contains(REFUSED), "control: {control:?}");

        let fence = Fence::new("device")?.with(&["--user", "nobody"]);
        let inside = to_end(fenced(&fence, &words(&open)))?;
        assert!(inside.stderr.contains(REFUSED), "{path}: {inside:?}");
        let refusals = fence.refusals()?;
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        let refusal = &refusals[0];
        assert_eq!(
            (refusal.device.as_str(), refusal.hook.as_str()),
            (path, "device")
        );
        assert_eq!(
            (refusal.rule.as_str(), refusal.command.as_str()),
            ("deny-device", "sh")
        );
    }
    Ok(())
}

#[test]
fn root_is_refused_as_well() -> Result<()> {
    let nodes = Nodes::new()?;
    let fence = Fence::new("root-device")?.with(&["--user", "root"]);
    let inside = to_end(fenced(&fence, &words(&nodes.open(200))))?;
    assert!(inside.stderr.contains(REFUSED), "{inside:?}");
    Ok(())
}

#[test]
fn they_are_let_be_if_asked_for() -> Result<()> {
    let nodes = Nodes::new()?;
    for (minor, path) in FORBIDDEN {
        let fence = Fence::new("allowed")?.with(&["--user", "nobody", "--allow-unfenced-net"]);
        let inside = to_end(fenced(&fence, &words(&nodes.open(minor))))?;
        assert!(!inside.stderr.contains(REFUSED), "{path}: {inside:?}");
        assert_eq!(fence.refusals()?, []);
    }
    Ok(())
}

#[test]
fn other_devices_are_let_be() -> Result<()> {
    let fence = Fence::new("others")?.with(&["--user", "nobody"]);
    let script = ": <> /dev/null && : </dev/zero && : </dev/urandom && echo opened";
    let inside = to_end(fenced(&fence, &["sh", "-c", script]))?;
    assert_eq!(inside.stdout, "opened\n", "{inside:?}");
    Ok(())
}
