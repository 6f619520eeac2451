//! A host with LXC, and a bridge for its containers.

use std::fs;

use anyhow::Result;

use super::{FILES, Room};
use crate::{debian, world::World};

/// The host's side of the bridge: where lxc-net has its nameserver too.
pub const GATEWAY: &str = "10.0.3.1";

/// The address of a container there.
pub const ADDRESS: &str = "10.0.3.15";

/// A bridge like that of lxc-net, by the same commands. iptables has this name without the links of an installation too.
const BRIDGE: &str = r#"set -e
ip link add lxcbr0 type bridge
ip addr add 10.0.3.1/24 dev lxcbr0
ip link set lxcbr0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
iptables-nft -t nat -A POSTROUTING -s 10.0.3.0/24 ! -d 10.0.3.0/24 -j MASQUERADE
"#;

impl Room {
    /// Makes a host with LXC in the network of the host of a world.
    pub fn with_lxc(world: &World, nameserver: &str) -> Result<Self> {
        let room = Self::with(&debian::lxc()?, world, nameserver)?;
        room.output(&["sh", "-c", BRIDGE])?;
        room.make_image()?;
        for directory in ["dev", "etc", "proc", "sys"] {
            fs::create_dir_all(room.path(FILES).join(directory))?;
        }
        Ok(room)
    }

    /// Configures the container `box`, with the files of the image and its address in the bridge. `lines` are added.
    pub fn configure_lxc(&self, lines: &str) -> Result<()> {
        let text = format!(
            "lxc.uts.name = box\n\
             lxc.rootfs.path = dir:{FILES}\n\
             lxc.mount.auto = proc:mixed sys:ro\n\
             lxc.apparmor.profile = unconfined\n\
             lxc.net.0.type = veth\n\
             lxc.net.0.link = lxcbr0\n\
             lxc.net.0.flags = up\n\
             lxc.net.0.ipv4.address = {ADDRESS}/24\n\
             lxc.net.0.ipv4.gateway = {GATEWAY}\n\
             {lines}"
        );
        self.write("/var/lib/lxc/box/config", &text)
    }

    /// Gives all files of the container to a user.
    pub fn own_lxc(&self, user: &str) -> Result<()> {
        self.output(&["chown", "--recursive", user, FILES])?;
        // They are below it.
        self.output(&["chmod", "o+x", "/root"]).map(drop)
    }

    /// Writes a file of the container.
    pub fn write_in_lxc(&self, path: &str, text: &str) -> Result<()> {
        self.write(&format!("{FILES}{path}"), text)
    }

    /// The path here of a file of the container.
    #[must_use]
    pub fn path_in_lxc(&self, path: &str) -> std::path::PathBuf {
        self.path(&format!("{FILES}{path}"))
    }
}
