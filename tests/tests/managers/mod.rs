//! Without `--allow-bus` the command reaches no manager's socket, by any way to its path, and has none of the groups
//! that may use one. Managers are played by listeners at their paths.

mod masks;
mod places;
mod sockets;
mod systemd;

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixListener,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    mounts::{bind, host_with, mount_new},
    namespace::{NOBODY, Namespace},
    process::Process,
    run::{Ended, to_end, without_sudo},
};

/// The ways of `attempts.py`.
const WAYS: usize = 10;

/// The sockets that managers make, and the ones that are no manager's.
const MANAGERS: [&str; 6] = [
    "/run/dbus/system_bus_socket",
    "/run/docker.sock",
    "/run/libvirt/libvirt-sock",
    "/run/user/65534/bus",
    "/run/user/65534/systemd/private",
    "/run/screen/S-nobody/1.screen",
];
const OTHERS: [&str; 2] = ["/run/user/65534/wayland-0", "/run/user/65534/pulse/native"];

/// A directory in which everybody may write, as /tmp.
const SCRATCH: &str = "/run/scratch";

const PYTHON: &str = "/usr/bin/python3";
/// Tries all ways to a socket.
const ATTEMPTS: &str = "/run/attempts.py";
/// Connects to a socket, and prints the result.
const CONNECT: &str = "/run/connect.py";
/// Makes sockets and connects to them.
const OWN: &str = "/run/own.py";

/// The scripts, on the host.
const SCRIPTS: [(&str, &str); 3] = [
    (ATTEMPTS, include_str!("attempts.py")),
    (CONNECT, include_str!("connect.py")),
    (OWN, include_str!("own.py")),
];

/// The group that may use Docker.
const DOCKER: u32 = 4242;

/// A host with managers.
struct Host {
    namespace: Namespace,
    listeners: Vec<UnixListener>,
}

fn listen(path: &Path, is_users: bool) -> Result<UnixListener> {
    let directory = path.parent().context("a directory")?;
    fs::create_dir_all(directory)?;
    let listener = UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    if is_users {
        for owned in [path, directory] {
            chown(owned, Some(NOBODY.uid), Some(NOBODY.gid))?;
        }
    }
    Ok(listener)
}

impl Host {
    fn new() -> Result<Self> {
        let mut listeners = Vec::new();
        let group = tempfile::NamedTempFile::new()?;
        fs::write(
            group.path(),
            format!("root:x:0:\nnogroup:x:65534:\ndocker:x:{DOCKER}:nobody\nkvm:x:4243:nobody\n"),
        )?;
        fs::set_permissions(group.path(), Permissions::from_mode(0o644))?;
        let namespace = host_with(|| {
            mount_new("tmpfs", "/run", Some("mode=0755"))?;
            fs::create_dir(SCRATCH)?;
            fs::set_permissions(SCRATCH, Permissions::from_mode(0o1777))?;
            for (path, text) in SCRIPTS {
                fs::write(path, text)?;
            }
            bind(group.path(), "/etc/group")?;
            for path in MANAGERS.iter().chain(&OTHERS) {
                let path = Path::new(path);
                let is_users = path.starts_with("/run/user") || path.starts_with("/run/screen");
                listeners.push(listen(path, is_users)?);
            }
            chown("/run/user/65534", Some(NOBODY.uid), Some(NOBODY.gid))?;
            Ok(())
        });
        Ok(Self {
            namespace: namespace?,
            listeners,
        })
    }

    /// A fence of nobody's on this host.
    fn fence(&self, options: &[&str]) -> Result<Fence> {
        Ok(Fence::new("managers")?
            .with(&["--user", "nobody"])
            .with(options))
    }

    /// Runs a command in a fence with these options.
    fn run(&self, options: &[&str], words: &[&str]) -> Result<Ended> {
        let fence = self.fence(options)?;
        let mut command = fence.command(&self.namespace, words[0]);
        command.args(&words[1..]).env("TMPDIR", SCRATCH);
        without_sudo(&mut command);
        to_end(command)
    }

    /// The outcome of each way to a socket, in a fence with these options or without one.
    fn ways(
        &self,
        options: Option<&[&str]>,
        path: &str,
        outside: u32,
    ) -> Result<BTreeMap<String, String>> {
        let words = [PYTHON, ATTEMPTS, path, &outside.to_string()];
        let ended = match options {
            Some(options) => self.run(options, &words)?,
            None => {
                let mut command = self.namespace.command_as(NOBODY, words[0]);
                command.args(&words[1..]).env("TMPDIR", SCRATCH);
                to_end(command)?
            }
        };
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let line = |line: &str| {
            let (way, outcome) = line.split_once(' ').context("a way and its outcome")?;
            Ok((way.to_owned(), outcome.to_owned()))
        };
        let ways: BTreeMap<_, _> = ended.stdout.lines().map(line).collect::<Result<_>>()?;
        assert_eq!(ways.len(), WAYS, "{ended:?}");
        Ok(ways)
    }

    /// A process of nobody's on this host, outside of any fence.
    fn outside(&self) -> Result<Process> {
        let mut command = self.namespace.command_as(NOBODY, "sleep");
        command.arg("1000");
        Process::spawn(command)
    }
}
