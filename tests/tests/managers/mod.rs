//! Without `--allow-bus` the command reaches no manager's socket, by any way to its path, and has none of the groups
//! that may use one. Managers are played by listeners at their paths.

mod places;
mod systemd;

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use qfence_user::base::exit::FAILED;
use tests::{
    fence::Fence,
    mounts::{bind, host_with, mount_new},
    namespace::{NOBODY, Namespace},
    process::Process,
    run::{Ended, to_end, wait_until, without_sudo},
    shell::Shell,
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

fn connected(ways: &BTreeMap<String, String>) -> Vec<&str> {
    let reached = ways.iter().filter(|(_, outcome)| *outcome == "connected");
    reached.map(|(way, _)| way.as_str()).collect()
}

#[test]
fn no_way_leads_to_a_manager() -> Result<()> {
    let host = Host::new()?;
    let outside = host.outside()?;
    for path in MANAGERS {
        let control = host.ways(None, path, outside.id())?;
        for way in ["path", "symlink", "relative", "proc-root", "umount", "bind"] {
            assert_eq!(control[way], "connected", "control of {path}: {control:?}");
        }
        let ways = host.ways(Some(&[]), path, outside.id())?;
        assert!(connected(&ways).is_empty(), "{path}: {ways:?}");
    }
    Ok(())
}

#[test]
fn other_sockets_of_the_user_are_reachable() -> Result<()> {
    let host = Host::new()?;
    let outside = host.outside()?;
    for path in OTHERS {
        let ways = host.ways(Some(&[]), path, outside.id())?;
        for way in ["path", "symlink", "relative", "umount", "bind"] {
            // A process in a user namespace may not bind a directory that has masks in it.
            let expected = if way == "bind" && path.ends_with("wayland-0") {
                "ENOENT"
            } else {
                "connected"
            };
            assert_eq!(ways[way], expected, "{path}: {ways:?}");
        }
    }
    Ok(())
}

#[test]
fn what_the_fence_makes_itself_is_usable() -> Result<()> {
    let host = Host::new()?;
    let fence = host.fence(&[])?;
    let mut shell = Shell::start(fence.command(&host.namespace, "sh"))?;
    assert_eq!(shell.ask(&format!("{PYTHON} {OWN}"))?, ["usable"]);
    // A socket of the command's in the runtime directory is there for its user outside.
    host.namespace
        .run(|| Ok(fs::symlink_metadata("/run/user/65534/own")?))
        .map(drop)
}

#[test]
fn managers_that_are_allowed_are_reachable() -> Result<()> {
    let host = Host::new()?;
    let connect = |options: &[&str], path: &str| -> Result<String> {
        let ended = host.run(options, &[PYTHON, CONNECT, path])?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        Ok(ended.stdout)
    };
    for path in MANAGERS {
        assert_eq!(connect(&["--allow-bus"], path)?, "connected\n", "{path}");
        let alone = ["--allow-unix", path];
        assert_eq!(connect(&alone, path)?, "connected\n", "{path}");
        let other = MANAGERS.into_iter().find(|other| *other != path);
        let other = other.context("another")?;
        assert_eq!(connect(&alone, other)?, "refused\n", "{other} with {path}");
    }
    Ok(())
}

#[test]
fn a_socket_that_its_manager_makes_anew_is_masked_again() -> Result<()> {
    let mut host = Host::new()?;
    let fence = host.fence(&[])?;
    let mut shell = Shell::start(fence.command(&host.namespace, "sh"))?;
    let connect = |shell: &mut Shell, path: &str| shell.ask(&format!("{PYTHON} {CONNECT} {path}"));
    assert_eq!(connect(&mut shell, "/run/docker.sock")?, ["refused"]);
    // Docker restarts; snapd and a libvirt of the user's start only now.
    let late = [
        "/run/docker.sock",
        "/run/snapd.socket",
        "/run/user/65534/libvirt/libvirt-sock",
    ];
    host.listeners.push(host.namespace.run(|| {
        fs::remove_file("/run/docker.sock")?;
        listen(Path::new(late[0]), false)
    })?);
    for path in &late[1..] {
        host.listeners.push(
            host.namespace
                .run(|| listen(Path::new(path), path.contains("user")))?,
        );
    }
    for path in late {
        wait_until(&format!("{path} is masked"), || {
            Ok(connect(&mut shell, path)? == ["refused"])
        })?;
        wait_until("it is reported", || {
            let said = shell.stderr();
            Ok(
                said.contains(&format!("made {path} while the command was running"))
                    || said.contains(&format!("made {} while", path.rsplit_once('/').unwrap().0)),
            )
        })?;
    }
    Ok(())
}

#[test]
fn the_command_has_no_group_of_a_manager() -> Result<()> {
    let host = Host::new()?;
    let groups = |options: &[&str]| -> Result<Vec<u32>> {
        let ended = host.run(options, &["id", "-G"])?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let groups = ended
            .stdout
            .split_whitespace()
            .map(|group| Ok(group.parse()?));
        groups.collect()
    };
    assert_eq!(groups(&[])?, [65534, 4243]);
    assert_eq!(groups(&["--allow-bus"])?, [65534, DOCKER, 4243]);
    // The group stays where its socket is allowed.
    assert_eq!(
        groups(&["--allow-unix", "/run/docker.sock"])?,
        [65534, 4243]
    );
    host.namespace
        .run(|| Ok(chown("/run/docker.sock", None, Some(DOCKER))?))?;
    assert_eq!(
        groups(&["--allow-unix", "/run/docker.sock"])?,
        [65534, DOCKER, 4243]
    );
    Ok(())
}

#[test]
fn a_masked_working_directory_is_the_mask() -> Result<()> {
    let host = Host::new()?;
    let fence = host.fence(&[])?;
    let mut command = fence.command(&host.namespace, "sh");
    command.args(["-c", "pwd; ls"]);
    // The working directory is entered in the host's mounts.
    let mut wrapped = host.namespace.command("sh");
    wrapped.args(["-c", "cd /run/user/65534/systemd && exec \"$@\"", "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    without_sudo(&mut wrapped);
    let ended = to_end(wrapped)?;
    assert_eq!(ended.stdout, "/run/user/65534/systemd\n", "{ended:?}");
    Ok(())
}

#[test]
fn a_socket_whose_path_is_not_plain_is_refused() -> Result<()> {
    for path in ["bus", "/run/../run/docker.sock", ""] {
        let fence = Fence::new("managers")?.with(&["--allow-unix", path]);
        let mut command = fence.command(&Namespace::new()?, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(i32::from(FAILED)), "{ended:?}");
        assert!(ended.stderr.contains("is absolute"), "{ended:?}");
        assert!(!fence.is_pinned());
    }
    Ok(())
}

#[test]
fn datagrams_reach_no_manager_either() -> Result<()> {
    let host = Host::new()?;
    let path = "/run/user/65534/systemd/notify";
    let socket = host.namespace.run(|| {
        let socket = UnixDatagram::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        Ok(socket)
    })?;
    socket.set_nonblocking(true)?;
    let send = format!(
        "import socket\ntry:\n    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '{path}')\n\
         except OSError:\n    pass\n"
    );
    let mut control = host.namespace.command_as(NOBODY, PYTHON);
    control.args(["-c", &send]);
    assert_eq!(to_end(control)?.code(), Some(0));
    assert_eq!(socket.recv(&mut [0; 4])?, 1);
    assert_eq!(host.run(&[], &[PYTHON, "-c", &send])?.code(), Some(0));
    assert!(socket.recv(&mut [0; 4]).is_err());
    Ok(())
}

#[test]
fn what_is_required_to_be_closed_is_closed_or_nothing_starts() -> Result<()> {
    let run = |options: &[&str]| -> Result<(Option<i32>, String)> {
        let fence = Fence::new("required")?.with(options);
        let mut command = fence.command(&Namespace::new()?, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        assert!(!fence.is_pinned());
        Ok((ended.code(), ended.stderr))
    };
    let both = ["--user", "nobody", "--require", "managers,processes"];
    let (code, said) = run(&both)?;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    for (options, reason) in [
        (
            &["--allow-bus"][..],
            "--require managers: it is not closed for the command: --allow-bus is given",
        ),
        (
            &["--allow-foreign-netns"],
            "--require processes: it is not closed for the command: --allow-foreign-netns is given",
        ),
        (
            &["--user", "root"],
            "--require managers: it is not closed for the command: the command runs as root",
        ),
    ] {
        let (code, said) = run(&[&both, options].concat())?;
        assert_eq!(code, Some(i32::from(FAILED)), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    Ok(())
}

#[test]
fn a_link_of_roots_is_followed_and_one_of_the_users_is_an_error() -> Result<()> {
    let host = Host::new()?;
    let connect = |path: &str| host.run(&[], &[PYTHON, CONNECT, path]);
    let link = |path: &'static str, target: &'static str| {
        host.namespace.run(move || {
            fs::rename(path, target)?;
            Ok(symlink(target, path)?)
        })
    };
    link("/run/docker.sock", "/run/engine.sock")?;
    for path in ["/run/docker.sock", "/run/engine.sock"] {
        let ended = connect(path)?;
        assert_eq!(ended.code(), Some(0), "{path}: {ended:?}");
        assert_eq!(ended.stdout, "refused\n", "{path}");
    }
    link("/run/user/65534/bus", "/run/user/65534/other")?;
    let ended = connect("/run/user/65534/bus")?;
    assert_eq!(ended.code(), Some(i32::from(FAILED)), "{ended:?}");
    let reason = "/run/user/65534/bus (D-Bus) is a symbolic link";
    assert!(ended.stderr.contains(reason), "{ended:?}");
    Ok(())
}
