//! The cgroup of a process.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;

use super::{Workload, WorkloadKind};
use crate::{
    base::{files::bounded, printable::printable},
    fence::nested::own_cgroup,
};

/// The most bytes of /proc/PID/cgroup. A path of a cgroup has at most 4096 bytes, and there are a dozen hierarchies.
const TABLE: u64 = 64 * 1024;

/// The most bytes of the name of a process.
const NAME: u64 = 64;

/// Finds the cgroup of a process. `proc` is procfs, and `root` is the cgroup that is mounted here.
///
/// # Errors
/// If there is no such process, or its cgroup is not visible here.
pub(super) fn find(pid: Pid, proc: &Path, root: &Path) -> Result<Workload> {
    ensure!(pid.as_raw() > 0, "{pid} is no process id");
    let directory = proc.join(pid.to_string());
    ensure!(directory.exists(), "there is no process {pid}");
    let cgroup = cgroup_of(pid, proc, root)?;
    if let Some(container) = of_lxc(&cgroup) {
        return Ok(Workload {
            pid: Some(pid),
            ..container
        });
    }
    let name = bounded::read(&directory.join("comm"), NAME).unwrap_or_default();
    Ok(Workload {
        kind: WorkloadKind::Process,
        name: format!("{} ({pid})", printable(name.trim_ascii_end())),
        cgroup,
        pid: Some(pid),
    })
}

/// The container of LXC that a cgroup belongs to. LXC keeps no file that has its containers' processes.
fn of_lxc(cgroup: &Path) -> Option<Workload> {
    let mut own = PathBuf::new();
    for part in cgroup.components() {
        own.push(part);
        let name = part.as_os_str().to_str()?;
        if let Some(name) = name.strip_prefix("lxc.payload.") {
            return Some(Workload {
                kind: WorkloadKind::Container {
                    engine: "lxc".to_owned(),
                },
                name: printable(name.as_bytes()),
                cgroup: own,
                pid: None,
            });
        }
    }
    None
}

/// The cgroup of a process, relative to the mount of cgroup2. It is that of the first thread.
///
/// # Errors
/// If it cannot be read, or is not visible here.
pub fn cgroup_of(pid: Pid, proc: &Path, root: &Path) -> Result<PathBuf> {
    let path = proc.join(pid.to_string()).join("cgroup");
    let context = || format!("cannot read {}", path.display());
    let table = bounded::read(&path, TABLE).with_context(context)?;
    let table = String::from_utf8(table).with_context(context)?;
    let own =
        own_cgroup(&table).with_context(|| format!("the process {pid} has no cgroup of v2"))?;
    below(Path::new(own), root)
        .with_context(|| format!("the cgroup {own} of the process {pid} is not visible here"))
}

/// A path of /proc/PID/cgroup, below the cgroup that is mounted.
pub(super) fn below(own: &Path, root: &Path) -> Result<PathBuf> {
    for path in [own, root] {
        if path.components().any(|part| part == Component::ParentDir) {
            bail!(
                "run qfence in the cgroup namespace of the host (a container needs --cgroupns=host)"
            );
        }
    }
    let below = own.strip_prefix(root);
    let below = below.context("another part of the cgroup tree is mounted here")?;
    Ok(below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_below_what_is_mounted() {
        let of = |own: &str, root: &str| below(Path::new(own), Path::new(root)).ok();
        assert_eq!(of("/a/b", "/"), Some("a/b".into()));
        assert_eq!(of("/a/b", "/a"), Some("b".into()));
        assert_eq!(of("/", "/"), Some("".into()));
        assert_eq!(of("/b", "/a"), None);
        assert_eq!(of("/../b", "/"), None);
        assert_eq!(of("/a/b", "/../a"), None);
    }

    #[test]
    fn a_container_of_lxc_is_recognised_by_its_cgroup() {
        let of = |path: &str| of_lxc(Path::new(path)).map(|found| (found.words(), found.cgroup));
        let words = "container box (lxc)".to_owned();
        for (path, cgroup) in [
            ("lxc.payload.box", "lxc.payload.box"),
            ("a/lxc.payload.box/init.scope", "a/lxc.payload.box"),
        ] {
            assert_eq!(of(path), Some((words.clone(), cgroup.into())));
        }
        assert_eq!(of("lxc.monitor.box"), None);
        assert_eq!(of("a"), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let found = find(Pid::this(), Path::new("/proc"), Path::new("/"));
        assert!(found.unwrap().name.ends_with(&format!("({})", Pid::this())));
        for pid in [0, -1, i32::MAX] {
            assert!(find(Pid::from_raw(pid), Path::new("/proc"), Path::new("/")).is_err());
        }
    }
}
