//! The names by which the programs for Unix sockets recognise managers.
//!
//! A socket that a manager made is refused, unless its name is on a list of harmless ones: service managers make the sockets
//! of their socket units themselves, and so those of the journal and of sound servers too. Exceptions are listed, not
//! denials: an unknown socket that is refused is noticed, and an unknown manager that is reachable is not.

use std::{collections::BTreeSet, os::unix::ffi::OsStrExt as _, path::Path};

use nix::unistd::Uid;

use super::{Managers, found::BEGINS_IN_RUNTIME, table::Endpoint};
use crate::{
    confinement::UnixName,
    kernel::manager_names::{Class, ManagerNames},
};

/// Units of managers. A socket that is made in one of these cgroups, or a little below it, is a manager's.
/// `init.scope` is the cgroup of every systemd, the system's and the users'.
const UNITS: &[&str] = &[
    "init.scope",
    "dbus.service",
    "dbus-broker.service",
    "buildkit.service",
    "containerd.service",
    "cri-docker.service",
    "crio.service",
    "docker.service",
    "emacs.service",
    "guix-daemon.service",
    "k3s.service",
    "libvirtd.service",
    "nix-daemon.service",
    "podman.service",
    "pueued.service",
    "snapd.service",
    "supervisor.service",
    "supervisord.service",
    "systemd-machined.service",
    "tmux.service",
];

/// Beginnings of the names of such units.
const UNIT_BEGINNINGS: &[&str] = &[
    "incus",
    "lxd",
    "virtint",
    "virtlo",
    "virtlx",
    "virtn",
    "virtp",
    "virtq",
    "virts",
    "virtv",
    "virtx",
    "snap.lxd.",
    "snap.docker.",
    "snap.incus.",
    "snap.multipass.",
];

/// Harmless sockets of the system's manager, and directories of such sockets.
const HARMLESS: &[&str] = &[
    "/run/acpid.socket",
    "/run/avahi-daemon/socket",
    "/run/cups/cups.sock",
    "/run/nscd/socket",
    "/run/nslcd/socket",
    "/run/pcscd/pcscd.comm",
    "/run/systemd/journal.",
    "/run/systemd/journal/",
    "/run/systemd/notify",
    "/run/systemd/resolve/",
    "/run/systemd/userdb/",
    "/run/uuidd/request",
    "/var/lib/sss/pipes/",
];

/// Harmless sockets of a user's manager, in the runtime directory.
const HARMLESS_OF_USER: &[&str] = &[
    "gcr/",
    "gnupg/",
    "keyring/",
    "openssh_agent",
    "p11-kit/",
    "pipewire-",
    "pulse/",
    "speech-dispatcher/",
    "ssh-agent.socket",
    "systemd/notify",
    "wayland-",
];

/// Beginnings of names that only managers use which a user starts in a session.
const DENIED: &[&[u8]] = &[
    b"/run/screen/",
    b"/tmp/dbus-",
    b"/tmp/i3-",
    b"/tmp/nvim.",
    b"/tmp/screens/",
    b"/tmp/tmux-",
    b"/tmp/zellij-",
    b"\0/tmp/dbus-",
];

impl Managers {
    /// The names for a fence in which these managers are closed, except the sockets `allowed`.
    #[must_use]
    pub fn names(&self, allowed: &BTreeSet<UnixName>) -> ManagerNames {
        let allowed: Vec<_> = allowed.iter().map(UnixName::bytes).collect();
        names(self.uid, &self.endpoints, &allowed)
    }
}

/// The names for a user. `allowed` are the names of sockets that it may use, as in `sun_path`.
fn names(uid: Uid, endpoints: &[Endpoint], allowed: &[Vec<u8>]) -> ManagerNames {
    let mut names = ManagerNames::default();
    for unit in UNITS {
        names.exactly(unit.as_bytes(), Class::Unit);
    }
    for beginning in UNIT_BEGINNINGS {
        names.under(beginning.as_bytes(), Class::Unit);
    }
    for name in DENIED {
        add(&mut names, name, Class::Denied);
    }
    let runtime = Path::new("/run/user").join(uid.to_string());
    for (_, begin) in BEGINS_IN_RUNTIME {
        let begin = runtime.join(begin);
        add(&mut names, begin.as_os_str().as_bytes(), Class::Denied);
    }
    for Endpoint { path, .. } in endpoints {
        add(&mut names, path.as_os_str().as_bytes(), Class::Denied);
        add(
            &mut names,
            path.join("").as_os_str().as_bytes(),
            Class::Denied,
        );
    }
    for name in HARMLESS {
        add(&mut names, name.as_bytes(), Class::Exempt);
    }
    for name in HARMLESS_OF_USER {
        let path = runtime.join(name);
        add(&mut names, path.as_os_str().as_bytes(), Class::Exempt);
    }
    // Last: they override the others.
    for name in allowed {
        for spelling in spellings(name) {
            names.exactly(&spelling, Class::Exempt);
        }
    }
    names
}

/// Adds a name, in each spelling. A name that ends in `/`, `-` or `.` is the beginning of names.
fn add(names: &mut ManagerNames, name: &[u8], class: Class) {
    for spelling in spellings(name) {
        if matches!(name.last(), Some(b'/' | b'-' | b'.')) {
            names.under(&spelling, class);
        } else {
            names.exactly(&spelling, class);
        }
    }
}

/// The spellings of a path that programs bind sockets to: /var/run is a link to /run.
fn spellings(name: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = vec![name.to_vec()];
    if name.starts_with(b"/run/") {
        spellings.push([b"/var", name].concat());
    }
    if name.starts_with(b"/var/run/") {
        spellings.push(name[4..].to_vec());
    }
    spellings
}

#[cfg(test)]
mod tests {
    use nix::unistd::Gid;

    use super::{super::table, *};

    fn of_alice(allowed: &[&[u8]]) -> ManagerNames {
        let uid = Uid::from_raw(1000);
        let endpoints = table::endpoints(uid, Gid::from_raw(100), Some("alice"));
        let allowed: Vec<_> = allowed.iter().map(|name| name.to_vec()).collect();
        names(uid, &endpoints, &allowed)
    }

    #[test]
    fn managers_are_units_or_have_known_names() {
        let names = of_alice(&[]);
        for unit in [
            "init.scope",
            "docker.service",
            "virtqemud.service",
            "lxd.service",
        ] {
            assert_eq!(names.class(unit.as_bytes()), Some(Class::Unit), "{unit}");
        }
        for unit in [
            "init.scope2",
            "user@1000.service",
            "session-1.scope",
            "virtualbox.service",
            "virt-manager.service",
            "",
        ] {
            assert_eq!(names.class(unit.as_bytes()), None, "{unit}");
        }
        for name in [
            &b"/tmp/tmux-1000/default"[..],
            b"\0/tmp/dbus-Xyz",
            b"/run/user/1000/bus",
            b"/var/run/docker.sock",
            b"/run/dbus/system_bus_socket",
            b"/run/user/1000/systemd/private",
            b"/run/user/1000/nvim.77.0",
            b"/nix/var/nix/daemon-socket/socket",
        ] {
            assert_eq!(names.class(name), Some(Class::Denied), "{name:?}");
        }
    }

    #[test]
    fn the_journal_and_agents_are_harmless_and_others_have_no_class() {
        let names = of_alice(&[]);
        for name in [
            "/run/systemd/journal/dev-log",
            "/run/systemd/journal.vm/socket",
            "/run/user/1000/systemd/notify",
            "/run/user/1000/pipewire-0",
            "/run/user/1000/gnupg/S.gpg-agent",
            "/var/run/pcscd/pcscd.comm",
        ] {
            assert_eq!(names.class(name.as_bytes()), Some(Class::Exempt), "{name}");
        }
        for name in [
            "/run/user/1001/pipewire-0",
            "/tmp/.X11-unix/X0",
            "/run/systemd/notify2",
            "/run/systemd/private",
        ] {
            assert_eq!(names.class(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn an_allowed_name_overrides_the_others_and_is_no_beginning() {
        let names = of_alice(&[b"/run/docker.sock", b"/tmp/tmux-1000/default", b"\0name"]);
        for name in [
            &b"/run/docker.sock"[..],
            b"/var/run/docker.sock",
            b"/tmp/tmux-1000/default",
            b"\0name",
        ] {
            assert_eq!(names.class(name), Some(Class::Exempt), "{name:?}");
        }
        assert_eq!(names.class(b"/tmp/tmux-1000/other"), Some(Class::Denied));
        assert_eq!(names.class(b"\0name2"), None);
    }
}
