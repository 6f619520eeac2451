//! Managers at places that are found on this host: buses that a user's session made in /tmp, servers whose sockets have their
//! process in their name, and servers that variables name.

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

/// The begins of paths at which a user's managers make sockets. dbus-daemon makes a bus of its own in /tmp
/// (`unix:tmpdir=/tmp`, dbus-launch(1), dbus-run-session(1)).
const BEGINS: &[(&str, &str)] = &[
    ("D-Bus", "/tmp/dbus-"),
    ("i3", "/tmp/i3-"),
    ("Neovim", "/tmp/nvim."),
    ("supervisord", "/tmp/supervisor.sock"),
];

/// The same in the user's runtime directory.
pub(super) const BEGINS_IN_RUNTIME: &[(&str, &str)] = &[
    ("sway", "sway-ipc."),
    ("niri", "niri."),
    ("Neovim", "nvim."),
    ("VS Code", "vscode-ipc-"),
];

/// The variables by which clients find their servers.
const VARIABLES: &[(&str, &str)] = &[
    ("D-Bus", "DBUS_SESSION_BUS_ADDRESS"),
    ("Docker", "DOCKER_HOST"),
    ("Podman", "CONTAINER_HOST"),
    ("tmux", "TMUX"),
    ("sway", "SWAYSOCK"),
    ("i3", "I3SOCK"),
    ("niri", "NIRI_SOCKET"),
    ("Emacs", "EMACS_SOCKET_NAME"),
    ("Neovim", "NVIM"),
    ("VS Code", "VSCODE_IPC_HOOK_CLI"),
    ("kitty", "KITTY_LISTEN_ON"),
    ("WezTerm", "WEZTERM_UNIX_SOCKET"),
    ("Nix", "NIX_DAEMON_SOCKET_PATH"),
    ("supervisord", "SUPERVISOR_SERVER_URL"),
];

/// The most endpoints that are found: each costs a mount, and the user of the command chooses how many sockets there are.
const MOST: usize = 256;

/// The endpoints of a user that are in none of `known`. `listeners` are the names of listening sockets, and `variable`
/// returns variables of the command's environment.
pub(super) fn endpoints(
    uid: Uid,
    known: &[Endpoint],
    listeners: &[Vec<u8>],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<Endpoint> {
    let of_listeners = listeners.iter().filter_map(|name| {
        let path = PathBuf::from(OsStr::from_bytes(name));
        Some((of_begin(uid, &path)?, path))
    });
    let named = VARIABLES
        .iter()
        .filter_map(|(manager, name)| Some((*manager, variable(name)?)))
        .flat_map(|(manager, value)| {
            let places = places(manager, &value);
            places.into_iter().map(move |place| (manager, place))
        });
    let mut found: Vec<Endpoint> = Vec::new();
    for (manager, path) in of_listeners.chain(named) {
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

/// The manager whose sockets have names that begin like this path.
fn of_begin(uid: Uid, path: &Path) -> Option<&'static str> {
    let begins =
        |path: &Path, begin: &str| path.as_os_str().as_bytes().starts_with(begin.as_bytes());
    let in_runtime = path.strip_prefix(format!("/run/user/{uid}")).ok();
    let of = |begins_with: &[(&'static str, &str)], path: &Path| {
        let mut all = begins_with.iter();
        all.find(|(_, begin)| begins(path, begin))
            .map(|(manager, _)| *manager)
    };
    of(BEGINS, path).or_else(|| of(BEGINS_IN_RUNTIME, in_runtime?))
}

/// Whether there is a socket of the user, or of root, whose servers serve all users.
fn is_socket_for(path: &Path, uid: Uid) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.file_type().is_socket() && (found.uid() == uid.as_raw() || found.uid() == 0)
    })
}

/// The paths of sockets in the value of a manager's variable: addresses of D-Bus ("Server Addresses" in its specification),
/// a URL or a path, or the first field of $TMUX.
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
        // A URL, or a path.
        _ => {
            let rest = text.strip_prefix("unix:").unwrap_or(&text);
            vec![rest.strip_prefix("//").unwrap_or(rest).to_owned()]
        }
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
        for value in ["/tmp/k", "unix:/tmp/k", "unix:///tmp/k"] {
            assert_eq!(of("kitty", value), [PathBuf::from("/tmp/k")], "{value}");
        }
        for value in ["unix:@abstract", "", "server", "http://127.0.0.1:9001"] {
            assert!(of("kitty", value).is_empty(), "{value}");
        }
    }

    #[test]
    fn names_with_a_process_in_them_are_known_by_their_begin() {
        let of = |path: &str| of_begin(Uid::from_raw(1000), Path::new(path));
        assert_eq!(of("/tmp/dbus-Xyz"), Some("D-Bus"));
        assert_eq!(of("/run/user/1000/sway-ipc.1000.77.sock"), Some("sway"));
        assert_eq!(of("/run/user/1000/nvim.77.0"), Some("Neovim"));
        assert_eq!(of("/tmp/nvim.alice/x/nvim.77.0"), Some("Neovim"));
        for other in [
            "/run/user/1001/nvim.77.0",
            "/run/user/1000/wayland-0",
            "/tmp/nvimrc",
            "/run/user/1000/sub/nvim.77.0",
            "@/tmp/dbus-Xyz",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn each_found_manager_has_a_number() {
        for (manager, _) in BEGINS.iter().chain(BEGINS_IN_RUNTIME).chain(VARIABLES) {
            let number = crate::confinement::managers::number(manager);
            assert!(number.is_some(), "{manager}");
        }
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
