//! The paths by which managers are reached.

use std::path::PathBuf;

use nix::unistd::{Gid, Uid};

use crate::confinement::managers;

/// How a path is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// A socket by a file that is not a socket, and a directory by an empty one. Only root can write to it.
    Empty,
    /// A directory by an empty one of the same user, so that the same service can be started in the fence.
    Own(Uid, Gid),
}

/// A socket of a manager, or a directory of such sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The name of the manager.
    pub(super) manager: &'static str,
    pub(super) path: PathBuf,
    pub(super) cover: Cover,
    /// Whether the user can replace parts of the path.
    pub(super) is_users: bool,
}

impl Endpoint {
    /// The user who must own what is there, in a directory where everybody can make files: clients refuse a directory
    /// of another user.
    pub(super) fn requires_owner(&self) -> Option<Uid> {
        match self.cover {
            Cover::Own(uid, _) if self.path.starts_with("/tmp") => Some(uid),
            _ => None,
        }
    }
}

/// Paths of the system. If a manager makes its socket anew (a restart), a mask on the socket is lost, and one on its
/// directory is not. So the directory is masked where it has nothing else in it.
///
/// Sockets that only root can open (/run/systemd/private) are not masked, and the command of root is not held.
const SYSTEM: &[(&str, &str)] = &[
    ("D-Bus", "/run/dbus"),
    ("systemd", "/run/systemd/io.systemd.Manager"),
    ("systemd-machined", "/run/systemd/machine"),
    ("Docker", "/run/docker.sock"),
    ("Docker", "/run/cri-dockerd.sock"),
    ("Podman", "/run/podman"),
    ("containerd", "/run/containerd"),
    ("containerd", "/run/k3s/containerd"),
    ("BuildKit", "/run/buildkit"),
    ("CRI-O", "/run/crio"),
    ("libvirt", "/run/libvirt"),
    ("LXD", "/var/lib/lxd/unix.socket"),
    ("LXD", "/var/snap/lxd/common/lxd/unix.socket"),
    ("LXD", "/var/snap/lxd/common/lxd-user/unix.socket"),
    ("Incus", "/var/lib/incus/unix.socket"),
    ("Incus", "/var/lib/incus/unix.socket.user"),
    ("Incus", "/run/incus/unix.socket"),
    ("snapd", "/run/snapd.socket"),
    ("snapd", "/run/snapd-snap.socket"),
    ("Multipass", "/run/multipass_socket"),
    ("Multipass", "/var/snap/multipass/common/multipass_socket"),
    // They build what any user asks for, as users of their own and with their network.
    ("Nix", "/nix/var/nix/daemon-socket"),
    ("Guix", "/var/guix/daemon-socket"),
    ("supervisord", "/run/supervisor.sock"),
    ("supervisord", "/run/supervisor"),
];

/// Sockets of services that look names up: systemd-resolved (nss-resolve), nscd, sssd, Avahi.
const NAME_SERVICES: &[&str] = &[
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/var/lib/sss/pipes/nss",
    "/run/avahi-daemon/socket",
];

/// Paths in the user's runtime directory, and whether the command can have its own directory there.
const USER: &[(&str, &str, bool)] = &[
    ("D-Bus", "bus", false),
    ("systemd", "systemd", false),
    ("Podman", "podman", true),
    ("Docker", "docker.sock", false),
    ("Docker", "docker", true),
    ("containerd", "containerd-rootless", true),
    ("BuildKit", "buildkit", true),
    ("libvirt", "libvirt", true),
    ("snapd", "snapd-session-agent.socket", false),
    ("Zellij", "zellij", true),
    // Window managers execute what their client tells them to (`exec`), editors and terminals too.
    ("i3", "i3", true),
    ("Hyprland", "hypr", true),
    ("Emacs", "emacs", true),
    ("WezTerm", "wezterm", true),
];

/// The services that look names up.
pub(super) fn name_services() -> impl Iterator<Item = Endpoint> {
    NAME_SERVICES.iter().map(|path| Endpoint {
        manager: managers::NAME_SERVICE,
        path: path.into(),
        cover: Cover::Empty,
        is_users: false,
    })
}

/// The endpoints to managers for a user. `login` is the user's name, if it has one.
pub(super) fn endpoints(uid: Uid, gid: Gid, login: Option<&str>) -> Vec<Endpoint> {
    let own = Cover::Own(uid, gid);
    let system = SYSTEM.iter().map(|(manager, path)| Endpoint {
        manager,
        path: path.into(),
        cover: Cover::Empty,
        is_users: false,
    });
    let users = |manager, path: String, cover| Endpoint {
        manager,
        path: path.into(),
        cover,
        is_users: true,
    };
    let runtime = format!("/run/user/{uid}");
    let user = USER.iter().map(|(manager, name, has_own)| {
        let cover = if *has_own { own } else { Cover::Empty };
        users(manager, format!("{runtime}/{name}"), cover)
    });
    // A server of these runs outside, and executes what its client types.
    let multiplexers = [
        ("tmux", format!("/tmp/tmux-{uid}")),
        ("tmux", format!("{runtime}/tmux-{uid}")),
        ("Zellij", format!("/tmp/zellij-{uid}")),
        ("Emacs", format!("/tmp/emacs{uid}")),
    ]
    .into_iter()
    .chain(login.map(|login| ("screen", format!("/run/screen/S-{login}"))))
    .map(|(manager, path)| users(manager, path, own));
    let pueue = login.map(|login| {
        let path = format!("{runtime}/pueue_{login}.socket");
        users("pueue", path, Cover::Empty)
    });
    system
        .chain(user)
        .chain(multiplexers)
        .chain(pueue)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn of_alice() -> Vec<Endpoint> {
        endpoints(Uid::from_raw(1000), Gid::from_raw(100), Some("alice"))
    }

    #[test]
    fn every_manager_has_a_number() {
        for Endpoint { manager, .. } in of_alice().into_iter().chain(name_services()) {
            let number = managers::number(manager);
            assert!(number.is_some(), "{manager}");
        }
    }

    #[test]
    fn paths_are_absolute_and_there_once() {
        let endpoints = of_alice();
        for (index, endpoint) in endpoints.iter().enumerate() {
            assert!(endpoint.path.is_absolute(), "{endpoint:?}");
            let is_inside = |other: &&Endpoint| endpoint.path.starts_with(&other.path);
            assert!(
                endpoints[..index].iter().find(is_inside).is_none(),
                "{endpoint:?}"
            );
        }
    }

    #[test]
    fn those_of_the_user_are_under_its_id_and_name() {
        let of = |path: &str| {
            of_alice()
                .into_iter()
                .find(|endpoint| endpoint.path == Path::new(path))
        };
        let bus = of("/run/user/1000/bus").unwrap();
        assert!(bus.is_users && bus.cover == Cover::Empty);
        let tmux = of("/tmp/tmux-1000").unwrap();
        assert_eq!(
            tmux.cover,
            Cover::Own(Uid::from_raw(1000), Gid::from_raw(100))
        );
        assert!(of("/run/screen/S-alice").unwrap().is_users);
        assert!(of("/run/user/1000/pueue_alice.socket").unwrap().is_users);
        assert!(!of("/run/docker.sock").unwrap().is_users);
        let nameless = endpoints(Uid::from_raw(7), Gid::from_raw(7), None);
        assert!(
            nameless
                .iter()
                .all(|endpoint| !endpoint.path.starts_with("/run/screen"))
        );
    }
}
