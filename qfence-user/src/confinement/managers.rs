//! The managers: services that run programs for others, whose Unix sockets a command must not use. This is the table of their
//! names, and of their abstract sockets. The paths of their sockets are in `launch/managers/table.rs`.

/// The names of all managers. The number of a manager is its place here, from 1.
pub const MANAGERS: [&str; 30] = [
    "D-Bus",
    "systemd",
    "systemd-machined",
    "Docker",
    "Podman",
    "containerd",
    "BuildKit",
    "CRI-O",
    "libvirt",
    "LXD",
    "Incus",
    "snapd",
    "tmux",
    "screen",
    "Zellij",
    "Nix",
    "Guix",
    "supervisord",
    "Multipass",
    "pueue",
    "sway",
    "i3",
    "Hyprland",
    "niri",
    "Emacs",
    "Neovim",
    "VS Code",
    "kitty",
    "WezTerm",
    NAME_SERVICE,
];

/// Services that look names up for others. They are closed under a policy with rules by name alone, whose look-ups the fence
/// answers itself.
pub const NAME_SERVICE: &str = "name service";

/// The begins of abstract names that belong to managers, without the zero byte before them. Abstract names have no
/// permissions: every process of the network namespace can use them.
pub const ABSTRACT: [(&str, &[u8]); 3] = [
    ("containerd", b"/run/containerd/"),
    ("containerd", b"/containerd-shim/"),
    ("systemd", b"/org/freedesktop/systemd1/"),
];

/// The begin of the abstract names that dbus-daemon makes for a bus of its own (`unix:tmpdir=/tmp`). Names that exist before
/// the fence are those of buses outside. Later ones cannot be told from those of buses in the fence.
pub const ABSTRACT_BUS: &[u8] = b"/tmp/dbus-";

/// The number of a manager.
#[must_use]
pub fn number(name: &str) -> Option<u16> {
    let place = MANAGERS.iter().position(|manager| *manager == name)?;
    u16::try_from(place + 1).ok()
}

/// The name of the manager with a number.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    MANAGERS.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_names() {
        for manager in MANAGERS {
            let number = number(manager).unwrap();
            assert_eq!(name(number.into()), Some(manager));
        }
        assert_eq!(number("nobody"), None);
        assert_eq!(name(0), None);
        assert_eq!(name(31), None);
        assert!(
            ABSTRACT
                .iter()
                .all(|(manager, _)| number(manager).is_some())
        );
    }
}
