//! Finds the cgroup of the target, and refuses one that must not be fenced.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;

use crate::{
    base::{console::notify, paths::Paths},
    cli::Attach,
    fence::{cgroup::Cgroup, hierarchy::Hierarchy},
    kernel::within::cookie_of,
    workload::{
        self, Target, Workload, cgroup_of,
        members::strangers,
        shared::{self, Facts},
        uplink,
    },
};

/// The most cgroups above a threaded one.
const LEVELS: usize = 64;

/// The cgroup to attach to.
#[derive(Debug)]
pub(super) struct Found {
    /// What is in it.
    pub(super) workload: Workload,
    /// Its path below the mount of cgroup2.
    pub(super) path: PathBuf,
    /// The cgroup.
    pub(super) cgroup: Cgroup,
    /// Its id.
    pub(super) id: u64,
}

impl Found {
    /// The workload in words.
    pub(super) fn words(&self) -> String {
        self.workload.words()
    }
}

/// Finds the cgroup of the target.
///
/// # Errors
/// If there is none, or it must not be fenced.
pub(super) fn find(options: &Attach, target: &Target, paths: &Paths) -> Result<Found> {
    let hierarchy = Hierarchy::find(&paths.mountinfo)?;
    let workload = workload::find(target, paths)?;
    let path = threaded_domain(&hierarchy, &workload.cgroup)?;
    let cgroup = hierarchy.other(&path);
    let id = cgroup.id()?;
    let id = id.with_context(|| format!("the cgroup {} is gone", path.display()))?;
    let own = cgroup_of(Pid::this(), &paths.proc, hierarchy.root()).ok();
    let strangers = match target {
        Target::Process(pid) | Target::Starting { pid, .. } => {
            strangers(cgroup.directory(), *pid, &paths.proc)?
        }
        // All in the cgroup is the workload's.
        _ => Vec::new(),
    };
    let facts = Facts {
        cgroup: &path,
        workload: &workload,
        strangers: &strangers,
        caller: own.as_deref(),
        stays: !options.detach,
    };
    match shared::refuse(&facts) {
        Err(refusal) if !(options.whole_cgroup && refusal.can_be_insisted_on()) => {
            return Err(refusal.into());
        }
        _ => {}
    }
    // Also where its path is not visible.
    ensure!(
        options.detach || !cgroup.pids()?.contains(&Pid::this()),
        "this process is in the cgroup {}: run qfence from elsewhere",
        path.display()
    );
    let first = first(&workload, &cgroup, paths)?;
    let made_outside = match first {
        Some(first) => uplink::of(&workload.words(), &path, first, paths, hierarchy.root()),
        None => Ok(None),
    };
    let made_outside = made_outside.and_then(|outside| match outside {
        Some(outside) => Err(outside.into()),
        None => Ok(()),
    });
    match made_outside {
        Err(error) if options.allow_unfenced_net => {
            notify(format_args!("warning: NOT FENCED: {error:#}"));
        }
        made_outside => made_outside?,
    }
    check_containment(&hierarchy, &path)?;
    Ok(Found {
        workload,
        path,
        cgroup,
        id,
    })
}

/// The first process of a workload, or any in its cgroup.
fn first(workload: &Workload, cgroup: &Cgroup, paths: &Paths) -> Result<Option<Pid>> {
    // A process whose first thread has ended shows no namespace.
    let shows = |pid: &Pid| paths.proc.join(pid.to_string()).join("ns/net").exists();
    Ok(workload.pid.or(cgroup.pids()?.into_iter().find(shows)))
}

/// A process of a target, whose namespaces are those of the target.
///
/// # Errors
/// If the target does not exist, or has no process.
pub(super) fn process(target: &Target, paths: &Paths) -> Result<(Workload, Pid)> {
    let hierarchy = Hierarchy::find(&paths.mountinfo)?;
    let workload = workload::find(target, paths)?;
    let cgroup = hierarchy.other(&threaded_domain(&hierarchy, &workload.cgroup)?);
    let first = first(&workload, &cgroup, paths)?;
    let first = first.with_context(|| format!("{} has no process", workload.words()))?;
    Ok((workload, first))
}

/// The cgroup with all threads of the processes in a cgroup: a socket belongs to the cgroup of the thread that makes it
/// (cgroups(7), "Thread mode").
fn threaded_domain(hierarchy: &Hierarchy, path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LEVELS {
        let file = hierarchy.mount().join(&path).join("cgroup.type");
        // The root has no such file.
        let kind = fs::read_to_string(&file).unwrap_or_default();
        if kind.trim_end() != "threaded" || !path.pop() {
            return Ok(path);
        }
    }
    bail!("the cgroup {} is too deep", path.display())
}

/// Checks that only root can move processes out of the cgroup at a path: who can write to `cgroup.procs` of a cgroup above
/// it can (cgroups(7), "Delegation containment").
fn check_containment(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    // The uppermost one: the processes can leave those between as well.
    let mut delegated = None;
    for above in path.ancestors().skip(1) {
        let file = hierarchy.mount().join(above).join("cgroup.procs");
        let context = || format!("cannot look at {}", file.display());
        let metadata = fs::metadata(&file).with_context(context)?;
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            delegated = Some((above, metadata.uid()));
        }
    }
    if let Some((above, user)) = delegated {
        bail!(
            "processes can leave the cgroup {}: the user {user} may move them within {above:?}, which is delegated; fence \
             that (--cgroup), or start the target with `qfence-user exec`",
            path.display()
        );
    }
    Ok(())
}

/// The network namespace of the target.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// The namespace; `None` for that of this process.
    pub(super) netns: Option<File>,
    /// Its cookie, if the kernel shows it.
    pub(super) cookie: Option<u64>,
}

impl Home {
    /// The namespace of the processes in the target's cgroup; that of this process if there are none.
    ///
    /// # Errors
    /// If they are in several, and that is not allowed.
    pub(super) fn of(options: &Attach, found: &Found, paths: &Paths) -> Result<Self> {
        let here = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let mut all: BTreeMap<u64, Pid> = BTreeMap::new();
        let first = found.workload.pid.into_iter();
        let namespace = |pid: Pid| {
            let path = paths.proc.join(pid.to_string()).join("ns/net");
            Some((fs::metadata(path).ok()?.ino(), pid))
        };
        let mut home = None;
        for (inode, pid) in first.chain(found.cgroup.pids()?).filter_map(namespace) {
            home = home.or(Some((inode, pid)));
            all.entry(inode).or_insert(pid);
        }
        if all.len() > 1 && !options.allow_foreign_netns {
            let pids: Vec<String> = all.values().map(ToString::to_string).collect();
            bail!(
                "the target is in {} network namespaces (processes {}), and new sockets would be refused in all but one; \
                 --allow-foreign-netns allows them",
                all.len(),
                pids.join(", ")
            );
        }
        let netns = match home {
            Some((inode, pid)) if inode != here => {
                let path = paths.proc.join(pid.to_string()).join("ns/net");
                let file = File::open(&path);
                Some(file.with_context(|| format!("cannot open {}", path.display()))?)
            }
            _ => None,
        };
        // Without it, the namespace of the first socket counts.
        let cookie = cookie_of(netns.as_ref().map(File::as_fd)).ok();
        Ok(Self { netns, cookie })
    }

    /// Checks that it is the namespace whose wires are fenced, if there is one.
    ///
    /// # Errors
    /// If it is another: the target has changed it meanwhile.
    pub(super) fn ensure_wired(&self, wired: Option<u64>) -> Result<()> {
        let Some(wired) = wired else { return Ok(()) };
        let own = self.netns.as_ref().map(File::metadata).transpose()?;
        ensure!(
            own.is_some_and(|own| own.ino() == wired),
            "--pod-device: the target is not in the network namespace any more whose devices were fenced for it"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wires_that_are_fenced_are_those_of_the_targets_namespace() {
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        let inode = netns.metadata().unwrap().ino();
        let home = Home {
            netns: Some(netns),
            cookie: None,
        };
        for (home, wired, is_so) in [
            (&home, Some(inode), true),
            (&home, Some(inode + 1), false),
            (&Home::default(), Some(inode), false),
            (&Home::default(), None, true),
        ] {
            assert_eq!(home.ensure_wired(wired).is_ok(), is_so, "{wired:?}");
        }
    }
}
