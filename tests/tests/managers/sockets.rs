//! Which sockets the command reaches.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixDatagram,
    },
};

use anyhow::{Context as _, Result};
use tests::{namespace::NOBODY, run::to_end, shell::Shell};

use super::{CONNECT, DOCKER, Host, MANAGERS, OTHERS, OWN, PYTHON};

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
