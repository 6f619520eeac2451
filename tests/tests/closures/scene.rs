//! A host with sockets of managers and others, and the attempts of `attempt.py` on it.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{PermissionsExt as _, chown},
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    mounts::{host_with, mount_new},
    namespace::{NOBODY, Namespace},
    run::{Ended, to_end, without_sudo},
};

pub(super) const PYTHON: &str = "/usr/bin/python3";
/// The script, on the host.
pub(super) const ATTEMPT: &str = "/run/attempt.py";
/// A directory in which everybody may write.
pub(super) const SCRATCH: &str = "/run/scratch";

/// The socket of a manager, and another socket.
pub(super) const BUS: &str = "/run/user/65534/bus";
pub(super) const WAYLAND: &str = "/run/user/65534/wayland-0";
/// A socket for datagrams.
pub(super) const NOTIFY: &str = "/run/user/65534/systemd/notify";

/// Abstract names.
const ABSTRACT: [&str; 4] = [
    "/tmp/dbus-outside",
    "/containerd-shim/one",
    "/tmp/.X11-unix/X9",
    "other",
];

pub(super) struct Scene {
    pub(super) host: Namespace,
    _listeners: Vec<UnixListener>,
    _datagrams: UnixDatagram,
}

impl Scene {
    pub(super) fn new() -> Result<Self> {
        let (mut listeners, mut datagrams) = (Vec::new(), None);
        let host = host_with(|| {
            mount_new("tmpfs", "/run", Some("mode=0755"))?;
            fs::create_dir(SCRATCH)?;
            fs::set_permissions(SCRATCH, Permissions::from_mode(0o1777))?;
            fs::write(ATTEMPT, include_str!("attempt.py"))?;
            for path in [BUS, WAYLAND, "/run/docker.sock"] {
                fs::create_dir_all(Path::new(path).parent().context("a directory")?)?;
                listeners.push(UnixListener::bind(path)?);
            }
            fs::create_dir("/run/user/65534/systemd")?;
            datagrams = Some(UnixDatagram::bind(NOTIFY)?);
            for path in [BUS, WAYLAND, NOTIFY, "/run/docker.sock"] {
                fs::set_permissions(path, Permissions::from_mode(0o666))?;
            }
            for path in [
                BUS,
                WAYLAND,
                NOTIFY,
                "/run/user/65534/systemd",
                "/run/user/65534",
            ] {
                chown(path, Some(NOBODY.uid), Some(NOBODY.gid))?;
            }
            for name in ABSTRACT {
                let address = SocketAddr::from_abstract_name(name)?;
                listeners.push(UnixListener::bind_addr(&address)?);
            }
            Ok(())
        })?;
        host.ip("link set lo up")?;
        Ok(Self {
            host,
            _listeners: listeners,
            _datagrams: datagrams.context("a socket")?,
        })
    }

    /// The outcomes of attempts of nobody without a fence.
    pub(super) fn outside(&self, attempts: &[&str]) -> Result<BTreeMap<String, String>> {
        let mut command = self.host.command_as(NOBODY, PYTHON);
        command.arg(ATTEMPT).args(attempts);
        outcomes(&to_end(command)?, attempts)
    }

    /// The outcomes of attempts in a fence.
    pub(super) fn inside(
        &self,
        fence: &Fence,
        attempts: &[&str],
    ) -> Result<BTreeMap<String, String>> {
        let mut command = fence.command(&self.host, PYTHON);
        command.arg(ATTEMPT).args(attempts);
        without_sudo(&mut command);
        outcomes(&to_end(command)?, attempts)
    }

    /// Checks that each attempt has its outcome in a fence with these options, run as nobody, and succeeds without a fence.
    pub(super) fn expect(&self, options: &[&str], wanted: &[(&str, &str)]) -> Result<Fence> {
        let attempts: Vec<&str> = wanted.iter().map(|(attempt, _)| *attempt).collect();
        for (attempt, outcome) in self.outside(&attempts)? {
            ensure!(outcome == "done", "control of {attempt}: {outcome}");
        }
        let fence = Fence::new("closures")?
            .with(&["--user", "nobody"])
            .with(options);
        // The closure of sockets includes that of files.
        let is_strict = options.iter().any(|option| option.starts_with("--strict"));
        let fence = match is_strict {
            true => fence.with(&["--allow-read", ATTEMPT]),
            false => fence,
        };
        let found = self.inside(&fence, &attempts)?;
        for (attempt, outcome) in wanted {
            ensure!(
                found[*attempt] == *outcome,
                "{attempt} with {options:?}: {outcome} was expected: {found:#?}"
            );
        }
        Ok(fence)
    }
}

fn outcomes(ended: &Ended, attempts: &[&str]) -> Result<BTreeMap<String, String>> {
    ensure!(ended.code() == Some(0), "{ended:?}");
    let line = |line: &str| {
        let (attempt, outcome) = line
            .rsplit_once(": ")
            .context("an attempt and its outcome")?;
        Ok((attempt.to_owned(), outcome.to_owned()))
    };
    let found: BTreeMap<_, _> = ended.stdout.lines().map(line).collect::<Result<_>>()?;
    ensure!(found.len() == attempts.len(), "{ended:?}");
    Ok(found)
}
