//! Workloads: what others start and a fence is attached to. A target names a workload; [`find`] finds its cgroup.

pub mod added;
mod container;
pub mod descriptor;
mod files;
pub mod libvirt;
mod living;
pub mod members;
mod not_running;
pub mod nri;
pub mod oci;
mod process;
pub mod shared;
pub(crate) mod taps;
mod unit;
pub mod uplink;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
pub use not_running::{NotRunning, is_not_running};
pub use process::cgroup_of;
use serde::{Deserialize, Serialize};

use self::libvirt::domain;
use crate::{
    base::{paths::Paths, process::helper::Apart},
    fence::hierarchy::Hierarchy,
};

/// What a user names as the target of a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A process, by its number.
    Process(Pid),
    /// A cgroup, by its path: in the file system, or below the mount of cgroup2.
    Cgroup(PathBuf),
    /// A container, by `NAME`, `ID`, the beginning of an id, or one of these after `ENGINE:`.
    Container(String),
    /// A unit of systemd's system manager. Without a type it is a service.
    Unit(String),
    /// A running domain of libvirt's system instance.
    Domain(String),
    /// A domain that libvirt is about to start.
    StartingDomain {
        /// Its name.
        name: String,
        /// Its partition: a path below the mount of cgroup2.
        partition: PathBuf,
    },
    /// A container that its OCI runtime is starting.
    Starting {
        /// Its id.
        id: String,
        /// Its first process.
        pid: Pid,
        /// The directory with its configuration.
        bundle: PathBuf,
    },
}

/// The kind of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// A unit of systemd.
    Unit,
    /// A container of an engine.
    Container {
        /// The name of the engine.
        engine: String,
    },
    /// A domain of libvirt.
    Domain,
    /// A cgroup that was named itself.
    Cgroup,
    /// A process that was named itself.
    Process,
}

/// A workload that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name, as people know it.
    pub name: String,
    /// Its cgroup: a relative path below the mount of cgroup2. It need not be the cgroup to attach to: it may be
    /// threaded.
    pub cgroup: PathBuf,
    /// Its first process, if it has one that is known.
    pub pid: Option<Pid>,
}

impl Workload {
    /// It in words, as `ps` shows it.
    #[must_use]
    pub fn words(&self) -> String {
        words(&self.kind, &self.name)
    }
}

/// The words for a domain of libvirt.
#[must_use]
pub fn words_of_domain(name: &str) -> String {
    words(&WorkloadKind::Domain, name)
}

/// The words for a container that its runtime started.
#[must_use]
pub fn words_of_started(id: &str) -> String {
    let engine = OCI.to_owned();
    words(&WorkloadKind::Container { engine }, id)
}

/// The words for network devices of these names.
#[must_use]
pub fn words_of_devices(names: &[String]) -> String {
    format!("device {}", names.join(", "))
}

fn words(kind: &WorkloadKind, name: &str) -> String {
    match kind {
        WorkloadKind::Unit => format!("unit {name}"),
        WorkloadKind::Container { engine } => format!("container {name} ({engine})"),
        WorkloadKind::Domain => format!("domain {name}"),
        WorkloadKind::Cgroup => format!("cgroup {name}"),
        WorkloadKind::Process => format!("process {name}"),
    }
}

/// The engine of a container whose runtime called qfence: which engine called the runtime is not known.
const OCI: &str = "oci";

/// Finds the workload that a target names.
///
/// # Errors
/// If there is none, or its cgroup is not visible here.
pub fn find(target: &Target, paths: &Paths) -> Result<Workload> {
    let hierarchy = Hierarchy::find(&paths.mountinfo)?;
    match target {
        Target::Process(pid) => process::find(*pid, &paths.proc, hierarchy.root()),
        Target::Cgroup(path) => named(path, hierarchy.mount()),
        Target::Container(name) => {
            let mut apart = Apart::new(&paths.proc);
            container::find(name, paths, hierarchy.root(), &mut apart)
        }
        Target::Unit(name) => unit::find(name, paths, &hierarchy),
        Target::Domain(name) => domain::find(name, paths, hierarchy.root()),
        Target::StartingDomain { name, partition } => Ok(Workload {
            kind: WorkloadKind::Domain,
            name: name.clone(),
            cgroup: partition.clone(),
            pid: None,
        }),
        Target::Starting { id, pid, .. } => Ok(Workload {
            kind: WorkloadKind::Container {
                engine: OCI.to_owned(),
            },
            name: id.clone(),
            ..process::find(*pid, &paths.proc, hierarchy.root())?
        }),
    }
}

/// An absolute path of the host, below another root.
fn in_root(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The cgroup with a path. `/` leads to the root of the file system if there is such a directory in the mount, otherwise
/// to the root of the hierarchy, as in /proc/PID/cgroup.
fn named(path: &Path, mount: &Path) -> Result<Workload> {
    let cgroup = cgroup_at(path, mount)?;
    Ok(Workload {
        kind: WorkloadKind::Cgroup,
        // The root has no name of its own.
        name: match cgroup.as_os_str().is_empty() {
            true => "/".into(),
            false => cgroup.to_string_lossy().into_owned(),
        },
        cgroup,
        pid: None,
    })
}

/// The path below the mount of cgroup2 of the cgroup that a user has named, by that path or by its directory.
///
/// # Errors
/// If there is none.
pub fn cgroup_at(path: &Path, mount: &Path) -> Result<PathBuf> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let directory = match path.strip_prefix(mount) {
        Ok(_) => path.to_owned(),
        Err(_) => mount.join(below),
    };
    let directory = directory
        .canonicalize()
        .with_context(|| format!("cannot find the cgroup {}", path.display()))?;
    let mount = mount.canonicalize()?;
    let cgroup = directory.strip_prefix(&mount).ok();
    let cgroup = cgroup.filter(|_| directory.join("cgroup.procs").exists() || directory == mount);
    let cgroup = cgroup.with_context(|| {
        format!(
            "{} is no cgroup: give a directory below {}",
            path.display(),
            mount.display()
        )
    })?;
    ensure!(
        directory.is_dir(),
        "{} is no directory: give that of a cgroup",
        path.display()
    );
    Ok(cgroup.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_cgroup_is_named_by_its_directory_or_below_the_mount() {
        let mount = tempfile::tempdir().unwrap();
        let cgroup = mount.path().join("a.slice/b.scope");
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), "").unwrap();
        for path in [
            cgroup.as_path(),
            Path::new("/a.slice/b.scope"),
            Path::new("a.slice/b.scope"),
        ] {
            let found = named(path, mount.path()).unwrap();
            assert_eq!(found.cgroup, Path::new("a.slice/b.scope"), "{path:?}");
        }
        for path in [
            "a.slice",
            "/nowhere",
            "/a.slice/../../..",
            "a.slice/b.scope/cgroup.procs",
        ] {
            assert!(named(Path::new(path), mount.path()).is_err(), "{path}");
        }
    }
}
