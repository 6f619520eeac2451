//! Programs that have their work done by a server outside of the fence. Pure.

mod podman;
mod wrappers;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

/// A program whose server does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The program.
    pub program: &'static str,
    /// The server, in words.
    pub server: &'static str,
    /// Parts of the names of the server's Unix sockets.
    pub sockets: &'static [&'static str],
    /// Whether the program starts a server itself, which is then in the fence, if there is none.
    pub begins: bool,
    /// The words that have the server start something; empty if all do.
    starts: &'static [&'static str],
}

/// The words of a container engine that start something.
const ENGINE: &[&str] = &[
    "build",
    "buildx",
    "compose",
    "container",
    "create",
    "exec",
    "kube",
    "play",
    "restart",
    "run",
    "start",
    "stack",
];

/// The words of LXD's and Incus' clients that start something.
const LXD: &[&str] = &[
    "create", "exec", "init", "launch", "restart", "restore", "shell", "start",
];

const DOCKER: Outside = Outside {
    program: "docker",
    server: "the Docker daemon",
    sockets: &["docker.sock"],
    begins: false,
    starts: ENGINE,
};

const PODMAN: Outside = Outside {
    program: "podman --remote",
    server: "the Podman service",
    sockets: &["podman.sock"],
    begins: false,
    starts: ENGINE,
};

const OTHERS: [Outside; 9] = [
    Outside {
        program: "docker-compose",
        server: "the Docker daemon",
        sockets: &["docker.sock"],
        begins: false,
        starts: &[
            "build", "create", "exec", "restart", "run", "start", "up", "watch",
        ],
    },
    Outside {
        program: "nerdctl",
        server: "containerd",
        sockets: &["containerd"],
        begins: false,
        starts: ENGINE,
    },
    Outside {
        program: "systemd-run",
        server: "systemd",
        sockets: &["systemd/private", "system_bus_socket", "/bus"],
        begins: false,
        starts: &[],
    },
    Outside {
        program: "tmux",
        server: "a tmux server",
        sockets: &["tmux-"],
        begins: true,
        starts: &[],
    },
    Outside {
        program: "virsh",
        server: "libvirt's daemon",
        sockets: &["libvirt"],
        begins: false,
        starts: &["create", "start", "restore"],
    },
    Outside {
        program: "virt-install",
        server: "libvirt's daemon",
        sockets: &["libvirt"],
        begins: false,
        starts: &[],
    },
    Outside {
        program: "incus",
        server: "the Incus daemon",
        sockets: &["incus"],
        begins: false,
        starts: LXD,
    },
    Outside {
        program: "lxc",
        server: "the LXD daemon",
        sockets: &["lxd"],
        begins: false,
        starts: LXD,
    },
    Outside {
        program: "machinectl",
        server: "systemd",
        sockets: &["systemd/private", "system_bus_socket", "/bus"],
        begins: false,
        starts: &["shell", "login", "start"],
    },
];

/// The program of a command whose work a server does, if it starts something.
#[must_use]
pub fn of(command: &[OsString], has_variable: impl Fn(&str) -> bool) -> Option<Outside> {
    let words = wrappers::of_program(command)?;
    let before = &command[..command.len() - words.len()];
    let has_variable = |wanted: &str| {
        let is_set = |word: &OsString| {
            let word = word.to_string_lossy();
            word.split_once('=').is_some_and(|(name, _)| name == wanted)
        };
        before.iter().any(is_set) || has_variable(wanted)
    };
    let (program, arguments) = (name(words.first()?), &words[1..]);
    let has = |wanted: &str| arguments.iter().any(|word| word == wanted);
    let found = match program {
        "docker" => DOCKER,
        "podman-remote" => PODMAN,
        "podman" => podman::is_client(arguments, has_variable).then_some(PODMAN)?,
        _ => *OTHERS.iter().find(|known| known.program == program)?,
    };
    let asks_only = ["--version", "--help", "-V", "-h"].into_iter().any(has);
    let starts = found.starts.is_empty() || found.starts.iter().any(|word| has(word));
    (starts && !(asks_only && arguments.len() == 1)).then_some(found)
}

fn name(word: &OsStr) -> &str {
    Path::new(word)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn found(line: &str) -> Option<&'static str> {
        let command: Vec<_> = line.split(' ').map(OsString::from).collect();
        of(&command, |_| false).map(|found| found.program)
    }

    #[test]
    fn programs_whose_server_starts_something_are_found() {
        for (line, program) in [
            ("docker run --rm alpine", "docker"),
            ("/usr/bin/docker compose up", "docker"),
            ("env A=b nice docker build .", "docker"),
            ("podman --remote run alpine", "podman --remote"),
            ("podman-remote run alpine", "podman --remote"),
            ("systemd-run --user sleep 1", "systemd-run"),
            ("tmux", "tmux"),
            ("tmux new -s x", "tmux"),
            ("virsh start vm", "virsh"),
            ("docker-compose up", "docker-compose"),
            ("docker-compose -f x.yml run web", "docker-compose"),
            ("virt-install --name vm --memory 512", "virt-install"),
            ("incus launch images:debian/12", "incus"),
            ("lxc exec c -- sh", "lxc"),
        ] {
            assert_eq!(found(line), Some(program), "{line}");
        }
        let remote = ["podman", "run", "x"].map(OsString::from);
        assert!(of(&remote, |name| name == "CONTAINER_HOST").is_some());
    }

    #[test]
    fn others_are_not() {
        for line in [
            "docker ps",
            "docker --version",
            "podman run alpine",
            "tmux -V",
            "virsh list",
            "sh -c docker",
            "cat docker",
            "./tmuxinator",
            "qemu-system-x86_64 -name docker run",
            "docker-compose ps",
            "docker-compose --version",
            "virt-install --help",
            "incus list",
            "lxc info",
            "lxc-start c",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
