//! Managers at places that are found on this host: buses that a user's session made in /tmp, and servers that variables name.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use super::table::{Cover, Endpoint};

/// The begin of the paths at which dbus-daemon makes a bus of its own (`unix:tmpdir=/tmp`, dbus-launch(1), dbus-run-session(1)).
const BUS: &[u8] = b"/tmp/dbus-";

/// The most endpoints that are found: each costs a mount, and the user of the command chooses how many sockets there are.
const MOST: usize = 256;

/// The endpoints of a user that are in none of `known`. `listeners` are the names of listening sockets, and `variable` returns variables of the
/// command's environment.
pub(super) fn endpoints(
    uid: Uid,
    known: &[Endpoint],
    listeners: &[Vec<u8>],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<Endpoint> {
    let buses = listeners
        .iter()
        .filter(|name| name.starts_with(BUS))
        .map(|path| ("D-Bus", PathBuf::from(OsStr::from_bytes(path))));
    let named = [
        ("D-Bus", "DBUS_SESSION_BUS_ADDRESS"),
        ("Docker", "DOCKER_HOST"),
        ("Podman", "CONTAINER_HOST"),
        ("tmux", "TMUX"),
    ]
    .into_iter()
    .filter_map(|(manager, name)| Some((manager, variable(name)?)))
    .flat_map(|(manager, value)| {
        let places = places(manager, &value);
        places.into_iter().map(move |place| (manager, place))
    });
    let mut found: Vec<Endpoint> = Vec::new();
    for (manager, path) in buses.chain(named) {
        // Without the links that lead there, which would be an error when it is masked.
        let Ok(path) = path.canonicalize() else {
            continue;
        };
        let is_known = |endpoint: &Endpoint| path.starts_with(&endpoint.path);
        if found.len() == MOST
            || known.iter().chain(&found).any(is_known)
            || !is_socket_for(&path, uid)
        {
            continue;
        }
        found.push(Endpoint {
            manager,
            path,
            cover: Cover::Empty,
            is_users: true,
        });
    }
    found
}

/// Whether there is a socket of the user, or of root, whose servers serve all users.
fn is_socket_for(path: &Path, uid: Uid) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.file_type().is_socket() && (found.uid() == uid.as_raw() || found.uid() == 0)
    })
}

/// The paths of sockets in the value of a manager's variable: addresses of D-Bus ("Server Addresses" in its specification),
/// a URL, or the first field of $TMUX.
fn places(manager: &str, value: &OsStr) -> Vec<PathBuf> {
    let text = value.to_string_lossy();
    let paths: Vec<String> = match manager {
        "D-Bus" => text
            .split(';')
            .filter_map(|address| address.strip_prefix("unix:"))
            .flat_map(|pairs| pairs.split(','))
            .filter_map(|pair| pair.strip_prefix("path="))
            .map(str::to_owned)
            .collect(),
        "tmux" => text
            .split(',')
            .next()
            .map(str::to_owned)
            .into_iter()
            .collect(),
        _ => text
            .strip_prefix("unix://")
            .map(str::to_owned)
            .into_iter()
            .collect(),
    };
    paths
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn variables_name_places() {
        let of = |manager, value: &str| places(manager, OsStr::new(value));
        assert_eq!(
            of("D-Bus", "unix:abstract=/x;unix:path=/run/bus,guid=0123"),
            [PathBuf::from("/run/bus")]
        );
        assert_eq!(
            of("Docker", "unix:///run/d.sock"),
            [PathBuf::from("/run/d.sock")]
        );
        assert!(of("Docker", "tcp://127.0.0.1:2375").is_empty());
        assert_eq!(
            of("tmux", "/tmp/t/default,12,0"),
            [PathBuf::from("/tmp/t/default")]
        );
        assert!(of("tmux", "relative,1,2").is_empty());
    }

    #[test]
    fn a_socket_is_found_once_and_only_where_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("bus");
        let _listener = UnixListener::bind(&path).unwrap();
        let address = OsString::from(format!("unix:path={0};unix:path={0}", path.display()));
        let variable = |name: &str| (name == "DBUS_SESSION_BUS_ADDRESS").then(|| address.clone());
        let found = endpoints(Uid::current(), &[], &[], variable);
        let [bus] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((bus.manager, &bus.path), ("D-Bus", &path));
        assert!(endpoints(Uid::current(), &found, &[], variable).is_empty());
        if !Uid::current().is_root() {
            return;
        }
        let stranger = Uid::from_raw(31_999);
        nix::unistd::chown(&path, Some(Uid::from_raw(31_998)), None).unwrap();
        assert!(endpoints(stranger, &[], &[], variable).is_empty());
    }
}
