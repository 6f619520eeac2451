//! The scene of `verify` for a test: its host has its own `/etc`, and a `/dev/net/tun` that every user may open.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
pub use qfence_user::verify::devices::scene::{
    GATEWAY_LOCAL, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_LOCAL, GUEST_MAC, GUEST_V4, GUEST_V6,
    HOST, NEIGHBOUR_MAC, NEIGHBOUR_V4, NEIGHBOUR_V6, OTHER_V4, OTHER_V6, PORT, SERVER_V4,
    SERVER_V6, TAP, UPLINK_V4, UPLINK_V6,
};
use qfence_user::{
    probe::frame::{Header, Tap},
    verify::devices::{bed, scene},
};

use super::Kind;
use crate::{namespace::Namespace, world};

/// A scene of namespaces that tests run commands in.
pub type Scene = scene::Scene<Namespace>;

/// Such a scene, on which frames are tried.
pub type Bed = bed::Bed<Namespace>;

/// Lays out a scene whose tap device belongs to the unprivileged user, and is not open.
pub fn lay_out(kind: Kind) -> Result<Scene> {
    let host = world::host_with_own_etc(give_own_tun).context("make the host")?;
    Scene::lay_out(kind, [host, Namespace::new()?, Namespace::new()?])
}

/// Lays out a scene with the rules of the rows, and opens the device.
pub fn bed(kind: Kind) -> Result<Bed> {
    Bed::new(lay_out(kind)?)
}

/// Makes a persistent tap device that belongs to the unprivileged user.
pub fn make_tap(host: &Namespace, name: &str, header: Header) -> Result<()> {
    scene::make_tap(host.as_ref(), name, header)
}

/// Opens a tap device of a namespace, or makes one that ends with the descriptor.
pub fn open_tap(namespace: &Namespace, name: &str, header: Header) -> Result<Tap> {
    namespace.run(|| Tap::open(name, header))
}

/// Makes the host forget the guest, so that it has to ask for it.
pub fn forget_guest(scene: &Scene) -> Result<()> {
    let device = scene.device();
    scene.host.ip_batch(&format!(
        "neighbour del 192.168.122.10 dev {device}\n\
         neighbour del fd00:122::10 dev {device}\n\
         neighbour del fe80::10 dev {device}\n"
    ))
}

/// Gives a namespace whose card is `eth0` the guest's addresses. The card has a carrier already.
pub fn furnish_guest(guest: &Namespace) -> Result<()> {
    scene::prepare(guest.as_ref())?;
    guest.ip_batch(
        "link set eth0 address 02:00:00:00:00:10\n\
         link set lo up\nlink set eth0 up\n\
         address add 192.168.122.10/24 brd + dev eth0\n\
         address add fd00:122::10/64 dev eth0 nodad\n\
         address add fe80::10/64 dev eth0 nodad\n\
         route add default via 192.168.122.1\n\
         route add default via fd00:122::1\n",
    )?;
    guest.await_local(&[GUEST_V4, GUEST_V6, GUEST_LOCAL])
}

/// The device of the tap in its own place among the host's mounts, for every user.
fn give_own_tun() -> Result<()> {
    const NONE: Option<&str> = None;
    // The overlay of /etc is in memory and keeps devices.
    let own = Path::new("/etc/tun-of-the-host");
    let mode = Mode::from_bits_truncate(0o666);
    mknod(own, SFlag::S_IFCHR, mode, makedev(10, 200)).context("make a device file")?;
    std::fs::set_permissions(own, Permissions::from_mode(0o666))?;
    mount(Some(own), "/dev/net/tun", NONE, MsFlags::MS_BIND, NONE)
        .context("mount a device file on /dev/net/tun")
}
