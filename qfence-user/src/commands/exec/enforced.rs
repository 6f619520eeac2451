//! The closures that eBPF programs enforce: worked out from the options and this host.

use std::{
    collections::BTreeSet,
    fs,
    io::{IsTerminal as _, stderr, stdin, stdout},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{major, minor};
use qfence_common::device::{ACCESSES, DeviceKey, KIND_BLOCK, KIND_CHARACTER, READ};

use super::replaceable;
use crate::{
    base::paths::Paths,
    confinement::{Closure, Devices, Enforced, Grants, NameRules, Strict, managers},
    host::unix_listeners,
    kernel,
    launch::managers::Managers,
};

/// The device nodes.
const DEV: &str = "/dev";

/// The slaves of pseudo-terminals, which are made while the command runs.
const TERMINALS: &str = "/dev/pts";

/// Works out the closures. `temporary` is the command's directory for temporary files, and `managers` are those that are
/// masked. `allow_networks` allows the devices of networks that the fence does not see.
///
/// # Errors
/// If the kernel lacks what a closure of `strict` needs, or a grant defeats one.
pub(super) fn work_out(
    strict: &Strict,
    grants: &Grants,
    temporary: Option<&Path>,
    managers: Option<&Managers>,
    allow_networks: bool,
    paths: &Paths,
) -> Result<Enforced> {
    Ok(Enforced {
        received: false,
        names: names(strict, grants, temporary, managers, paths)?,
        listen: strict
            .has(Closure::Listeners)
            .then(|| grants.listen.clone()),
        devices: match strict.has(Closure::Devices) {
            true => {
                let mut devices = devices(grants, allow_networks)?;
                for stream in terminals() {
                    allow(&mut devices, Path::new(stream), ACCESSES);
                }
                Some(devices)
            }
            false => None,
        },
        options_unseen: false,
        resolver: None,
    })
}

fn names(
    strict: &Strict,
    grants: &Grants,
    temporary: Option<&Path>,
    managers: Option<&Managers>,
    paths: &Paths,
) -> Result<Option<NameRules>> {
    let of_managers = managers.map(Managers::paths).unwrap_or_default();
    if !strict.has(Closure::Sockets) {
        // Without the hooks the masks remain. `doctor` shows the lack.
        if managers.is_none() || kernel::try_unix(&paths.run).is_err() {
            return Ok(None);
        }
        let buses = buses(&unix_listeners::names(&paths.proc)?);
        return Ok(Some(NameRules::of_managers(
            &of_managers,
            &buses,
            &grants.connect,
        )));
    }
    if let Err(error) = kernel::try_unix(&paths.run) {
        return Err(error.context(format!(
            "--strict: this kernel cannot close sockets (names of Unix sockets, Linux 6.7); {}",
            strict.advice(&[Closure::Sockets])
        )));
    }
    replaceable::refuse(grants)?;
    Ok(Some(NameRules::closed(
        &of_managers,
        &grants.connect,
        &replaceable::own(grants, temporary),
        grants.abstract_names(),
    )))
}

/// The abstract names of the buses among those of listeners.
fn buses(listeners: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    let names = listeners.iter().filter_map(|name| name.strip_prefix(b"@"));
    names
        .filter(|name| name.starts_with(managers::ABSTRACT_BUS))
        .map(<[u8]>::to_vec)
        .collect()
}

/// The devices among the granted files, and directly in the granted directories of /dev.
fn devices(grants: &Grants, allow_networks: bool) -> Result<Devices> {
    let mut devices = Devices::harmless();
    if allow_networks {
        devices.allow_networks();
    }
    for (paths, accesses) in [(&grants.read, READ), (&grants.write, ACCESSES)] {
        for path in paths {
            allow(&mut devices, path, accesses);
            if path.starts_with(DEV) && path.is_dir() {
                let context = || format!("cannot read {}", path.display());
                for entry in fs::read_dir(path).with_context(context)? {
                    allow(&mut devices, &entry.with_context(context)?.path(), accesses);
                }
            }
            if path == Path::new(TERMINALS) {
                devices.allow_terminals(accesses);
            }
        }
    }
    Ok(devices)
}

/// The standard streams that are terminals, which the command can open under their names.
fn terminals() -> impl Iterator<Item = &'static str> {
    let streams = [
        ("/proc/self/fd/0", stdin().is_terminal()),
        ("/proc/self/fd/1", stdout().is_terminal()),
        ("/proc/self/fd/2", stderr().is_terminal()),
    ];
    let terminals = streams.into_iter().filter(|(_, is_terminal)| *is_terminal);
    terminals.map(|(path, _)| path)
}

/// Allows what is at a path, if it is a device. Symbolic links are followed, as the command does.
fn allow(devices: &mut Devices, path: &Path, accesses: u32) {
    let Ok(found) = fs::metadata(path) else {
        return;
    };
    let kind = match found.file_type() {
        kind if kind.is_char_device() => KIND_CHARACTER,
        kind if kind.is_block_device() => KIND_BLOCK,
        _ => return,
    };
    // The kernel's numbers have 12 and 20 bits.
    let number = |number: u64| u32::try_from(number).unwrap_or_default();
    let device = DeviceKey {
        kind,
        major: number(major(found.rdev())),
        minor: number(minor(found.rdev())),
    };
    devices.allow(device, accesses);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn buses_are_abstract_names_of_a_begin() {
        let names = ["@/tmp/dbus-abc", "@/tmp/.X11-unix/X0", "/tmp/dbus-path"];
        let names = names.map(|name| name.as_bytes().to_vec());
        assert_eq!(buses(&names), BTreeSet::from([b"/tmp/dbus-abc".to_vec()]));
    }

    #[test]
    fn devices_are_those_of_files_and_of_directories_in_dev() {
        let of = |read: &[&str], write: &[&str]| {
            let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
            let grants = Grants {
                read: set(read),
                write: set(write),
                ..Grants::default()
            };
            devices(&grants, false).unwrap()
        };
        let none = Devices::harmless();
        assert_eq!(of(&["/usr", "/nonexistent"], &["/tmp"]), none);
        let ptmx = DeviceKey {
            kind: KIND_CHARACTER,
            major: 5,
            minor: 2,
        };
        let has = |devices: &Devices, accesses| devices.iter().any(|one| one == (ptmx, accesses));
        assert!(has(&of(&[], &["/dev/ptmx"]), ACCESSES));
        assert!(has(&of(&["/dev"], &[]), READ));
        let terminals = of(&[], &["/dev/pts"]);
        let later = |(device, _): (DeviceKey, u32)| device.major == 136 && device.minor == u32::MAX;
        assert!(terminals.iter().any(later));
    }
}
