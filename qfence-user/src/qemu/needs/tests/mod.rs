//! Command lines, and what a QEMU with them needs.

mod disks;
mod display;
mod files;
mod malformed;
mod refused;
mod servers;

use std::collections::BTreeSet;

use qfence_common::Protocol;

use super::*;
use crate::confinement::{Closure, UnixName};

/// The paths that exist in these tests.
const FILES: [&str; 16] = [
    "/vm/there",
    "/vm/bios.bin",
    "/vm/memory",
    "/vm/initrd,odd",
    "/vm/both",
    "/vm/p.in",
    "/vm/p.out",
    "/dev/dri",
    "/home/u/.Xauthority",
    "/home/u/.config/pulse/cookie",
    "/home/u/cookie",
    "/run/xauth",
    "/home/u/.asoundrc",
    "/usr/share/qemu/bios.bin",
    "/dev/snd",
    "/vm/present.pid",
];

/// Directories that exist.
const DIRECTORIES: [&str; 2] = ["/dev/hugepages", "/vm/directory"];

/// The needs of `command` in /vm, under all closures.
fn command(command: &str, environment: &[(&str, &str)], closures: &[Closure]) -> Option<Needs> {
    let command: Vec<OsString> = command.split(' ').map(OsString::from).collect();
    let own = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let mut environment: BTreeMap<_, _> = environment.iter().map(own).collect();
    environment.insert("HOME".into(), "/home/u".into());
    let configuration = |path: &Path| match path.to_str() {
        Some("vm.conf") => Ok(
            "[drive]\n file = \"disk\"\n[chardev \"c\"]\n backend = \"file\"\n \
                               path = \"there\"\n[spice]\n port = \"5930\"\n"
                .to_owned(),
        ),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let kind = |path: &Path| match path.to_str() {
        Some(path) if FILES.contains(&path) => Kind::File,
        Some(path) if DIRECTORIES.contains(&path) => Kind::Directory,
        _ => Kind::Missing,
    };
    let setting = Setting {
        directory: Path::new("/vm"),
        environment: &environment,
        strict: &Strict::of(closures),
        resolve: &|_| None,
        read: &configuration,
        kind: &kind,
    };
    of(&command, &setting)
}

/// The needs of a QEMU with these arguments, and with no window unless they ask for one.
fn needs(arguments: &str) -> Needs {
    let line = format!("qemu-system-x86_64 -nographic {arguments}");
    command(line.trim_end(), &[], &Closure::ALL).unwrap()
}

/// All needs but /dev/kvm, in one line: `read`, `write`, `make`, `connect`, `listen`, `keep`.
fn line(needs: &Needs) -> String {
    let grants = &needs.grants;
    let paths = |kind: &str, paths: &BTreeSet<PathBuf>| {
        let path = |path: &PathBuf| format!("{kind} {}", path.display());
        paths.iter().map(path).collect::<Vec<_>>()
    };
    let mut all = paths("read", &grants.read);
    all.extend(
        paths("write", &grants.write)
            .into_iter()
            .filter(|path| path != "write /dev/kvm"),
    );
    all.extend(paths("make", &grants.make));
    all.extend(grants.connect.iter().map(|name| match name {
        UnixName::Path(path) => format!("connect {}", path.display()),
        UnixName::Abstract(name) => format!("connect @{}", String::from_utf8_lossy(name)),
    }));
    all.extend(grants.listen.iter().map(|listener| {
        let protocol = match listener.protocol {
            Protocol::TCP => "tcp",
            Protocol::UDP => "udp",
            other => panic!("{other:?}"),
        };
        match (listener.first, listener.last) {
            (first, last) if first == last => format!("listen {protocol}:{first}"),
            (first, last) => format!("listen {protocol}:{first}-{last}"),
        }
    }));
    all.extend(grants.environment.iter().map(|name| format!("keep {name}")));
    let flags = [
        (grants.shared_memory, "shared memory"),
        (needs.temporary_directory, "temporary directory"),
        (needs.changes_attributes, "attributes"),
    ];
    all.extend(
        flags
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, name)| (*name).to_owned()),
    );
    all.join(", ")
}

/// Checks a table: arguments, and what they need. Nothing of it is refused.
#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (arguments, expected) in table {
        let needs = needs(arguments);
        assert_eq!(line(&needs), *expected, "{arguments}");
        assert_eq!(needs.refused, [], "{arguments}");
    }
}

#[test]
fn every_qemu_may_use_kvm() {
    let writes = needs("-m 512").grants.write;
    assert_eq!(writes, BTreeSet::from(["/dev/kvm".into()]));
}

#[test]
fn only_a_qemu_has_needs() {
    for line in ["ls -hda disk", "qemu-img create disk", "sh -c run-qemu"] {
        assert_eq!(command(line, &[], &[]), None, "{line}");
    }
    for wrapped in [
        "nice -n 5 kvm -nographic -hda disk",
        "qrap 5 kvm -nographic -hda disk",
        "qrap -nographic -hda disk",
    ] {
        let needs = command(wrapped, &[], &[]).unwrap();
        assert_eq!(line(&needs), "write /vm/disk", "{wrapped}");
    }
}

#[test]
fn options_that_are_unknown_or_ask_for_help_grant_nothing() {
    check(&[
        ("", ""),
        ("-future file=/vm/x", ""),
        ("-drive future=/vm/x", ""),
        ("-append file=/vm/x -name /vm/x", ""),
        ("-blockdev help -chardev help -object ?", ""),
        ("-chardev file,path=/vm/x,help", ""),
        ("-nodefaults -S -no-reboot -enable-kvm -m 512 -smp 2", ""),
    ]);
}

#[test]
fn configuration_files_need_what_their_options_need() {
    check(&[
        (
            "-readconfig vm.conf",
            "read /vm/vm.conf, write /vm/disk, write /vm/there, listen tcp:5930",
        ),
        ("-readconfig missing.conf", "read /vm/missing.conf"),
    ]);
}
