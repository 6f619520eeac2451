//! The workload that a cgroup belongs to, by its path: pure.

use std::{
    ffi::OsStr,
    path::{Component, Path},
};

use crate::base::printable::{printable, shortened};

/// The maximum length of a name, in bytes: as long as that of a directory.
const NAME: usize = 255;

/// The length of a container's id where it is shown.
const SHOWN: usize = 12;

/// Cgroups of engines that have a cgroup for each workload.
const GROUPS: [&str; 7] = [
    "besteffort",
    "burstable",
    "docker",
    "kubepods",
    "libpod_parent",
    "lxc",
    "machine",
];

/// Ends of the names of units that have processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// A cgroup, by its name and the cgroup above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// That of a workload, in words.
    Workload(String),
    /// One that has a cgroup for each of several workloads, such as a slice.
    Group,
    /// Any other.
    Other,
}

/// What the cgroup `name` is. `above` is the name of the cgroup above it.
pub(super) fn kind(name: &OsStr, above: Option<&OsStr>) -> Kind {
    // Names of engines and of systemd are ASCII.
    let Some(name) = name.to_str() else {
        return Kind::Other;
    };
    let plain = name.strip_suffix(".scope").unwrap_or(name);
    if let Some(pod) = pod(name) {
        return Kind::Workload(format!("pod {pod}"));
    }
    if let Some(domain) = domain(plain) {
        return Kind::Workload(format!("domain {}", printable(domain.as_bytes())));
    }
    if let Some((engine, id)) = container(plain, above.and_then(OsStr::to_str)) {
        let id = printable(id.as_bytes());
        return Kind::Workload(format!("container {id} ({engine})"));
    }
    if UNITS.iter().any(|end| name.ends_with(end)) {
        return Kind::Workload(format!("unit {}", printable(name.as_bytes())));
    }
    match name.ends_with(".slice") || name.ends_with(".partition") || GROUPS.contains(&name) {
        true => Kind::Group,
        false => Kind::Other,
    }
}

/// The workload whose cgroup is at `path` below the place of a fence, or has that below it. `place` is the name of the place.
/// `None` if the cgroup belongs to no workload below the place.
pub(super) fn member(place: Option<&OsStr>, path: &Path) -> Option<String> {
    let mut above = place;
    let mut last = None;
    for part in path.components() {
        let Component::Normal(name) = part else {
            return None;
        };
        match kind(name, above) {
            Kind::Workload(words) => return Some(shortened(words, NAME)),
            Kind::Group => last = Some(name),
            Kind::Other => return Some(shortened(words_of_cgroup(name), NAME)),
        }
        above = Some(name);
    }
    // Processes in a slice itself.
    last.map(|name| shortened(words_of_cgroup(name), NAME))
}

fn words_of_cgroup(name: &OsStr) -> String {
    format!("cgroup {}", printable(name.as_encoded_bytes()))
}

/// The id of the pod whose cgroup has this name: `kubepods-burstable-podID.slice`, or `podID`.
fn pod(name: &str) -> Option<String> {
    let id = match name.strip_suffix(".slice") {
        Some(slice) => slice
            .strip_prefix("kubepods")
            .and_then(|rest| rest.rsplit_once("-pod"))?
            .1
            // systemd takes a hyphen for the next slice.
            .replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let is_id = |id: &str| id.len() >= 32 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_id(&id).then_some(id)
}

/// The name of libvirt's domain whose cgroup has this name: `qemu-1-NAME.libvirt-qemu`, or `machine-qemu\x2d1\x2dNAME`.
fn domain(name: &str) -> Option<String> {
    let machine = match name.strip_prefix("machine-") {
        Some(escaped) => unescaped(escaped)?,
        None => name.strip_suffix(".libvirt-qemu")?.to_owned(),
    };
    let (number, domain) = machine.strip_prefix("qemu-")?.split_once('-')?;
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    (is_number && !domain.is_empty()).then(|| domain.to_owned())
}

/// The engine and the id of the container whose cgroup has this name.
fn container<'a>(name: &'a str, above: Option<&str>) -> Option<(&'static str, &'a str)> {
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some(("lxc", name));
    }
    let engines = [
        ("docker-", "docker"),
        ("libpod-", "podman"),
        ("crio-", "crio"),
        ("cri-containerd-", "containerd"),
    ];
    let named = engines.iter().find_map(|(beginning, engine)| {
        let id = name.strip_prefix(beginning)?;
        Some((*engine, id))
    });
    let (engine, id) = named.unwrap_or(match above {
        Some("docker") => ("docker", name),
        _ => ("oci", name),
    });
    let is_id = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    is_id.then(|| (engine, &id[..SHOWN]))
}

/// Replaces `\xNN` by the byte NN, as in names of systemd's units.
fn unescaped(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "0a1b2c3d-0000-1111-2222-333344445555";

    fn of(place: &str, path: &str) -> Option<String> {
        member(Some(place.as_ref()), path.as_ref())
    }

    #[test]
    fn a_member_is_named_as_its_kind_is() {
        let escaped = POD.replace('-', "_");
        for (path, words) in [
            ("web.service".to_owned(), "unit web.service"),
            ("web.service/qfence/x".into(), "unit web.service"),
            ("a-b.slice/web.service".into(), "unit web.service"),
            ("run-r1.scope/a".into(), "unit run-r1.scope"),
            (
                "user@1000.service/app.slice/a.scope".into(),
                "unit user@1000.service",
            ),
            (
                format!("docker-{ID}.scope"),
                "container 0123456789ab (docker)",
            ),
            (format!("docker/{ID}/a"), "container 0123456789ab (docker)"),
            (
                format!("libpod-{ID}.scope/container"),
                "container 0123456789ab (podman)",
            ),
            (
                format!("libpod_parent/libpod-{ID}"),
                "container 0123456789ab (podman)",
            ),
            (
                format!("libpod-conmon-{ID}.scope"),
                &format!("unit libpod-conmon-{ID}.scope"),
            ),
            (format!("crio-{ID}.scope"), "container 0123456789ab (crio)"),
            (
                format!("kubepods-burstable-pod{escaped}.slice/cri-containerd-{ID}.scope"),
                &format!("pod {POD}"),
            ),
            (format!("kubepods/pod{POD}/{ID}"), &format!("pod {POD}")),
            (ID.to_owned(), "container 0123456789ab (oci)"),
            (
                r"machine-qemu\x2d1\x2dvm\x2da.scope/libvirt/vcpu0".into(),
                "domain vm-a",
            ),
            (
                r"machine-vm1.slice/machine-qemu\x2d12\x2dvm1.scope".into(),
                "domain vm1",
            ),
            (
                "vm1.partition/qemu-1-vm1.libvirt-qemu/emulator".into(),
                "domain vm1",
            ),
            ("machine-box.scope/payload".into(), "unit machine-box.scope"),
            ("lxc.payload.box/init.scope".into(), "container box (lxc)"),
            ("lxc.monitor.box".into(), "cgroup lxc.monitor.box"),
            ("a/b".into(), "cgroup a"),
            ("a\u{1b}[2J".into(), r"cgroup a\x1b[2J"),
            // Processes in a slice itself.
            ("a.slice/a-b.slice".into(), "cgroup a-b.slice"),
        ] {
            assert_eq!(of("vms.slice", &path).as_deref(), Some(words), "{path}");
        }
        assert_eq!(
            of("docker", ID).as_deref(),
            Some("container 0123456789ab (docker)")
        );
        assert_eq!(of("vms.slice", ""), None);
        assert_eq!(of("vms.slice", "../a"), None);
    }

    #[test]
    fn names_that_only_resemble_those_of_engines_are_names_of_cgroups() {
        for name in [
            "podcast",
            "docker-abc",
            "qemu-x-vm.libvirt-qemu",
            "qemu-1-.libvirt-qemu",
            &ID[1..],
        ] {
            let words = format!("cgroup {name}");
            assert_eq!(of("a", name).as_deref(), Some(&*words));
        }
        for name in [
            r"machine-qemu\x2d.scope",
            r"machine-qemu\x2.scope",
            r"machine-\xff.scope",
        ] {
            let words = format!("unit {name}");
            assert_eq!(of("a", name).as_deref(), Some(&*words));
        }
    }

    #[test]
    fn a_long_name_is_shortened() {
        let found = of("a", &"x".repeat(4000)).unwrap();
        assert!(found.len() <= NAME + "…".len() && found.ends_with('…'));
    }
}
