//! What a container lacks of its host for `attach` to what runs outside of it: namespaces and mounts. Capabilities and the
//! filter of system calls have checks of their own.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::finding::Finding;
use crate::{
    base::{mounts, paths::Paths},
    fence::nested::own_cgroup,
};

const NAME: &str = "container";

/// The files by which Docker and podman mark a container.
const FILES: [&str; 2] = [".dockerenv", "run/.containerenv"];

/// The variable that a kubelet gives every container.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";

/// What is known of a container.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The cgroup of this process, as it is shown here.
    own: String,
    /// That of process 1, as it is shown here.
    first: String,
    /// Whether process 1 is in the network namespace of this process; `None` if that is unknown.
    shares_network: Option<bool>,
    /// The mount points, with their types.
    mounts: Vec<(PathBuf, String)>,
}

/// Looks at the container that this process is in; nothing if it is in none.
#[must_use]
pub fn examine(paths: &Paths) -> Vec<Finding> {
    let is_marked = FILES.iter().any(|file| paths.root.join(file).exists());
    if !is_marked && env::var_os(KUBERNETES).is_none() {
        return Vec::new();
    }
    judge(&Facts::read(paths), paths)
}

impl Facts {
    fn read(paths: &Paths) -> Self {
        let cgroup = |process: &str| {
            let text = fs::read_to_string(paths.proc.join(process).join("cgroup"));
            let text = text.unwrap_or_default();
            own_cgroup(&text).unwrap_or_default().to_owned()
        };
        let network = |process: &str| {
            let path = paths.proc.join(process).join("ns/net");
            fs::metadata(path).ok().map(|found| found.ino())
        };
        let mounts = mounts::read(&paths.mountinfo).unwrap_or_default();
        Self {
            own: cgroup("self"),
            first: cgroup("1"),
            shares_network: network("1")
                .zip(network("self"))
                .map(|(first, own)| first == own),
            mounts: mounts
                .into_iter()
                .map(|mount| (mount.point, mount.fs_type))
                .collect(),
        }
    }

    fn has_mount(&self, at: &Path, fs_type: Option<&str>) -> bool {
        self.mounts
            .iter()
            .any(|(point, found)| point == at && fs_type.is_none_or(|fs_type| fs_type == found))
    }
}

fn judge(facts: &Facts, paths: &Paths) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut lacks = |what: &str, found: &str, fix: &str| {
        findings.push(Finding::degraded(format!("{NAME}: {what}"), found, fix));
    };
    // In the host's namespace the path names the container.
    if facts.own == "/" {
        lacks(
            "cgroup namespace",
            "it is the container's own: only what runs in the container can be fenced",
            "start the container with --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup; in Kubernetes enter that of the \
             node: `nsenter --target 1 --cgroup -- qfence-user …`",
        );
    }
    let has_own_processes = facts.first == facts.own;
    if has_own_processes {
        lacks(
            "process namespace",
            "it is the container's own: processes of the host have no numbers here",
            "start the container with --pid=host (hostPID: true)",
        );
    } else if facts.shares_network == Some(false) {
        lacks(
            "network namespace",
            "it is the container's own: its addresses count as the host's, and those of the host do not",
            "start the container with --network=host (hostNetwork: true)",
        );
    }
    if !facts.has_mount(&paths.bpffs, Some("bpf")) {
        lacks(
            "pins",
            "the host's bpffs is not mounted: fences end with the container",
            "start the container with -v /sys/fs/bpf:/sys/fs/bpf",
        );
    }
    let above = paths.run.parent().unwrap_or(Path::new("/"));
    if !facts.has_mount(&paths.run, None) && !facts.has_mount(above, None) {
        lacks(
            "state",
            "the host's /run/qfence is not mounted: qfence outside of the container does not know its fences",
            "make the directory on the host, and start the container with -v /run/qfence:/run/qfence",
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            NAME,
            "it has the namespaces and mounts of its host that qfence needs",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Facts {
        Facts {
            own: "/docker/ab".into(),
            first: "/init.scope".into(),
            shares_network: Some(true),
            mounts: vec![
                ("/sys/fs/bpf".into(), "bpf".into()),
                ("/run/qfence".into(), "tmpfs".into()),
            ],
        }
    }

    fn names(facts: &Facts) -> Vec<String> {
        let found = judge(facts, &Paths::default()).into_iter();
        found.map(|finding| finding.name).collect()
    }

    #[test]
    fn a_container_with_all_of_it_lacks_nothing() {
        assert_eq!(names(&whole()), [NAME]);
        let mut all_of_run = whole();
        all_of_run.mounts[1].0 = "/run".into();
        assert_eq!(names(&all_of_run), [NAME]);
    }

    #[test]
    fn each_namespace_and_mount_that_is_missing_is_named() {
        let mut facts = whole();
        facts.own = "/".into();
        assert_eq!(names(&facts), ["container: cgroup namespace"]);
        facts.first = "/".into();
        // Which network process 1 has is then unknown.
        facts.shares_network = Some(true);
        assert_eq!(
            names(&facts),
            [
                "container: cgroup namespace",
                "container: process namespace"
            ]
        );
        let mut facts = whole();
        facts.shares_network = Some(false);
        assert_eq!(names(&facts), ["container: network namespace"]);
        // A directory of sysfs, where bpffs would be.
        let mut facts = whole();
        facts.mounts[0].1 = "sysfs".into();
        assert_eq!(names(&facts), ["container: pins"]);
        facts.mounts.clear();
        assert_eq!(names(&facts), ["container: pins", "container: state"]);
    }

    #[test]
    fn elsewhere_than_in_a_container_nothing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: dir.path().to_owned(),
            ..Paths::default()
        };
        if env::var_os(KUBERNETES).is_none() {
            assert!(examine(&paths).is_empty());
        }
        fs::write(dir.path().join(FILES[0]), "").unwrap();
        assert!(!examine(&paths).is_empty());
    }
}
