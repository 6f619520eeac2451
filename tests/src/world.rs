//! The private host and internet of `verify`, extended for tests: the host has its own `/etc` and a bridge, and its
//! gateway forwards.
//!
//! ```text
//! host, beside what `qfence_user::verify::internet` draws
//! br0  203.0.113.5/24  2001:db8:3::5/64
//! ```

use std::{fs, io, net::IpAddr, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use qfence_user::verify::internet::connect;
pub use qfence_user::verify::internet::{
    GATEWAY_V4, GATEWAY_V6, HOST_LINK_LOCAL, HOST_V4, HOST_V6, OTHER_V4 as BRIDGE_V4,
    OTHER_V6 as BRIDGE_V6, SERVER_V4, SERVER_V6,
};
use tempfile::TempPath;

use crate::{namespace::Namespace, workspace};

/// What the host's `/etc/resolv.conf` says at first: a resolver on loopback, as systemd has it.
pub const RESOLV_CONF: &str = "nameserver 127.0.0.53\n";

/// The mount point at which qfence pins its objects.
const BPFFS: &str = "/sys/fs/bpf";

/// A private host and internet. They end with this value, and with the processes inside.
#[derive(Debug)]
pub struct World {
    /// The host that is to be protected: own network, own `/etc`; everything else is shared.
    pub host: Namespace,
    /// The world outside.
    pub internet: Namespace,
}

impl World {
    /// Makes a host and an internet. Needs root; any number may exist at a time.
    pub fn new() -> Result<Self> {
        let host = host_with_own_etc(|| Ok(())).context("make the host")?;
        let internet = Namespace::new().context("make the internet")?;
        connect(host.as_ref(), internet.as_ref(), true).context("connect the two")?;
        // An unconnected bridge has no carrier, so a port is added: one end of a veth pair.
        host.ip_batch(&format!(
            "link add br0 type bridge\n\
             link add port0 type veth peer name port1\n\
             link set port0 master br0\n\
             link set port0 up\nlink set port1 up\n\
             link set br0 up\n\
             address add {BRIDGE_V4}/24 brd + dev br0\n\
             address add {BRIDGE_V6}/64 dev br0 nodad\n",
        ))?;
        host.await_local(&[BRIDGE_V4, BRIDGE_V6])?;
        // Like any gateway, it reports an unreachable destination.
        internet.sysctl("net/ipv4/ip_forward", "1")?;
        internet.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(Self { host, internet })
    }

    /// Every unicast address of the host, except loopback and link-local addresses.
    #[must_use]
    pub const fn host_addresses() -> [IpAddr; 4] {
        [HOST_V4, HOST_V6, BRIDGE_V4, BRIDGE_V6]
    }

    /// Binds another network namespace to a path among the host's mounts, so that a process in a fence can join it:
    /// such a process has no access to this process's descriptors.
    pub fn mount_namespace(&self, other: &Namespace) -> Result<TempPath> {
        let file = tempfile::Builder::new()
            .prefix("qfence-netns-")
            .tempfile()?
            .into_temp_path();
        let none: Option<&str> = None;
        self.host.run(|| {
            let namespace = other.path();
            mount(Some(&namespace), &*file, none, MsFlags::MS_BIND, none)
                .context("give a namespace a path")
        })?;
        Ok(file)
    }

    /// Runs `ip` on the host, for example `route add local 198.18.0.0/24 dev lo`.
    pub fn host_ip(&self, arguments: &str) -> Result<String> {
        self.host.ip(arguments)
    }

    /// Adds an address to the host. It is usable on return.
    pub fn add_host_address(&self, address: IpAddr, device: &str) -> Result<()> {
        let length = if address.is_ipv4() { "32" } else { "128 nodad" };
        self.host
            .ip(&format!("address add {address}/{length} dev {device}"))?;
        self.host.await_local(&[address])
    }

    /// Replaces the host's `/etc/resolv.conf` in one step.
    pub fn write_resolv_conf(&self, text: &str) -> Result<()> {
        self.write_etc("resolv.conf", text)
    }

    /// Replaces the host's `/etc/resolv.conf` by a symbolic link, in one step.
    pub fn symlink_resolv_conf(&self, target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref();
        self.replace_in_etc("resolv.conf", |new| symlink(target, new))
    }

    /// Writes a file in the host's `/etc`, in one step.
    pub fn write_etc(&self, name: &str, text: &str) -> Result<()> {
        self.replace_in_etc(name, |new| fs::write(new, text))
    }

    fn replace_in_etc(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> io::Result<()> + Send,
    ) -> Result<()> {
        self.host.run(|| {
            let path = Path::new("/etc").join(name);
            let new = path.with_added_extension("new");
            fs::create_dir_all(path.parent().context("a file in /etc has a parent")?)?;
            make(&new).with_context(|| format!("write {}", new.display()))?;
            fs::rename(&new, &path).with_context(|| format!("replace {}", path.display()))
        })
    }
}

/// A host whose network is empty, and which has its own `/etc`. `prepare` may change its mounts further.
pub(crate) fn host_with_own_etc(prepare: impl FnOnce() -> Result<()> + Send) -> Result<Namespace> {
    mount_bpffs().with_context(|| format!("mount {BPFFS}"))?;
    Namespace::with_mounts(|| {
        give_own_etc()?;
        prepare()
    })
}

/// Mounts the BPF file system if necessary, before any mount namespace is made: a mount inside a mount namespace would
/// be private to it.
fn mount_bpffs() -> Result<()> {
    let _lock = workspace::lock(Path::new("/sys/fs"))?;
    if statfs(BPFFS).context("statfs")?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700")).context("mount")
}

/// Mounts a writable overlay in memory over `/etc`. All other mounts remain those of the machine.
fn give_own_etc() -> Result<()> {
    const NONE: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).context("make all mounts private")?;
    // The overlay keeps its layers itself, so the tmpfs needs a mount point only for a moment.
    let memory = "/mnt";
    mount(
        Some("tmpfs"),
        memory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("mount a tmpfs")?;
    fs::create_dir("/mnt/upper").context("create the upper layer")?;
    fs::create_dir("/mnt/work").context("create the overlay's work directory")?;
    let layers = "lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work";
    mount(
        Some("overlay"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(layers),
    )
    .context("mount an overlay on /etc")?;
    umount2(memory, MntFlags::MNT_DETACH).context("unmount the tmpfs")?;
    fs::write("/etc/resolv.conf.new", RESOLV_CONF).context("write resolv.conf")?;
    fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf").context("replace resolv.conf")
}
