//! Cgroups that have more than the workload. A fence on one of them would hold processes that nobody meant, so they are
//! refused, each with its reason and the way out.

use std::path::{Component, Path, PathBuf};

use super::{Workload, WorkloadKind};
use crate::{base::printable::printable, fence::hierarchy::PARENT};

/// The most processes that an error names.
const NAMED: usize = 5;

/// Units of container engines and of libvirt. Domains of qemu:///session, slirp4netns and docker-proxy run in them.
const ENGINES: [&str; 10] = [
    "containerd.service",
    "crio.service",
    "docker.service",
    "kubelet.service",
    "libvirtd.service",
    "lxc-monitord.service",
    "podman.service",
    "virtlxcd.service",
    "virtqemud.service",
    "virtnetworkd.service",
];

/// Slices that have whatever nobody put elsewhere (systemd.special(7)).
const COMMON: [&str; 7] = [
    "-.slice",
    "app.slice",
    "background.slice",
    "machine.slice",
    "session.slice",
    "system.slice",
    "user.slice",
];

/// What is known of a cgroup that a fence is to be attached to.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Its path below the mount of cgroup2.
    pub cgroup: &'a Path,
    /// The workload that is to be fenced.
    pub workload: &'a Workload,
    /// Processes in the cgroup that are not the workload's, in words.
    pub strangers: &'a [String],
    /// The cgroup of this process, below the mount; `None` if it is not visible.
    pub caller: Option<&'a Path>,
    /// Whether this process stays there as the supervisor.
    pub stays: bool,
}

/// Why a cgroup is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shared {
    /// The root of the hierarchy.
    #[error(
        "{0} is in the root of the cgroups, as all processes are that nobody put elsewhere: start it in a cgroup of its \
         own (`qfence-user exec`, or `systemd-run --scope`)"
    )]
    Root(String),
    /// The parent of fences, or the cgroup of one.
    #[error("the cgroup {} belongs to a fence: see `qfence-user ps`, and change that one by `qfence-user set`", .0.display())]
    Fence(PathBuf),
    /// That of process 1.
    #[error("the cgroup {} is that of process 1: name another unit or cgroup", .0.display())]
    Init(PathBuf),
    /// One that has this process.
    #[error(
        "the cgroup {} has this process too, which would fence itself: run qfence from another session or unit",
        .0.display()
    )]
    Caller(PathBuf),
    /// A slice that has whatever nobody put elsewhere.
    #[error(
        "the slice {} has every unit that names no other: give the workload a slice of its own (Slice=NAME.slice) and \
         name that, or insist (--whole-cgroup)",
        .0.display()
    )]
    CommonSlice(PathBuf),
    /// A slice that was not asked for.
    #[error(
        "{workload} is in the slice {} itself, beside other units: name the slice (--unit {}) if all of it is to be \
         fenced",
        cgroup.display(), last(cgroup)
    )]
    Slice {
        /// The slice.
        cgroup: PathBuf,
        /// What was asked for.
        workload: String,
    },
    /// That of a login session.
    #[error(
        "the cgroup {} is a login session, with everything that was started in it: start the workload in a unit of its \
         own (`systemd-run --scope`), or insist (--whole-cgroup)",
        .0.display()
    )]
    Session(PathBuf),
    /// That of a user's service manager.
    #[error(
        "the cgroup {} has the user's service manager and all its units: name the cgroup of one of them (--cgroup), or \
         insist (--whole-cgroup)",
        .0.display()
    )]
    UserManager(PathBuf),
    /// That of an engine.
    #[error(
        "the cgroup {} is that of {engine} itself, which serves all its workloads: name one of them (--container, \
         --domain), or insist (--whole-cgroup)",
        cgroup.display()
    )]
    Engine {
        /// The cgroup.
        cgroup: PathBuf,
        /// The engine.
        engine: String,
    },
    /// One with processes that are not the workload's.
    #[error(
        "the cgroup {} has more than {workload}: {}; start the workload in a cgroup of its own (`systemd-run --scope`), \
         or insist (--whole-cgroup)",
        cgroup.display(), named(strangers)
    )]
    Strangers {
        /// The cgroup.
        cgroup: PathBuf,
        /// What was asked for.
        workload: String,
        /// Other processes.
        strangers: Vec<String>,
    },
}

impl Shared {
    /// Whether `--whole-cgroup` allows it.
    #[must_use]
    pub const fn can_be_insisted_on(&self) -> bool {
        !matches!(
            self,
            Self::Root(_) | Self::Fence(_) | Self::Init(_) | Self::Caller(_)
        )
    }
}

/// Refuses a cgroup that has more than the workload.
///
/// # Errors
/// The first reason. Those that cannot be insisted on come first.
pub fn refuse(facts: &Facts<'_>) -> Result<(), Shared> {
    let path = facts.cgroup;
    let workload = printable(facts.workload.name.as_bytes());
    let cgroup = || PathBuf::from(printable(path.as_os_str().as_encoded_bytes()));
    if path.as_os_str().is_empty() {
        return Err(Shared::Root(workload));
    }
    // Fences are at the top, or beneath the unit that starts them.
    if path
        .components()
        .any(|part| part == Component::Normal(PARENT.as_ref()))
    {
        return Err(Shared::Fence(cgroup()));
    }
    if path == Path::new("init.scope") {
        return Err(Shared::Init(cgroup()));
    }
    if facts.stays && facts.caller.is_some_and(|caller| caller.starts_with(path)) {
        return Err(Shared::Caller(cgroup()));
    }
    let last = last(path);
    if COMMON.contains(&last) {
        return Err(Shared::CommonSlice(cgroup()));
    }
    if last.ends_with(".slice") && !is_asked_for(facts.workload, last) {
        let cgroup = cgroup();
        return Err(Shared::Slice { cgroup, workload });
    }
    if is_kind(last, "session-", ".scope") {
        return Err(Shared::Session(cgroup()));
    }
    if is_kind(last, "user@", ".service") {
        return Err(Shared::UserManager(cgroup()));
    }
    if let Some(engine) = engine(last) {
        let cgroup = cgroup();
        return Err(Shared::Engine { cgroup, engine });
    }
    if !facts.strangers.is_empty() {
        return Err(Shared::Strangers {
            cgroup: cgroup(),
            workload,
            strangers: facts.strangers.to_vec(),
        });
    }
    Ok(())
}

/// Whether the user named this very slice.
fn is_asked_for(workload: &Workload, slice: &str) -> bool {
    match workload.kind {
        WorkloadKind::Unit => workload.name == slice,
        // The slice of a domain is its partition.
        WorkloadKind::Cgroup | WorkloadKind::Domain => true,
        WorkloadKind::Container { .. } | WorkloadKind::Process => false,
    }
}

/// The engine whose own processes a cgroup has.
fn engine(name: &str) -> Option<String> {
    let unit = ENGINES.contains(&name);
    // The processes that watch a container for podman, CRI-O and LXC.
    let monitor = ["libpod-conmon-", "crio-conmon-", "lxc.monitor."]
        .iter()
        .any(|beginning| name.starts_with(beginning));
    let engine = name.strip_suffix(".service").unwrap_or(name);
    (unit || monitor).then(|| printable(engine.as_bytes()))
}

fn is_kind(name: &str, beginning: &str, end: &str) -> bool {
    name.strip_prefix(beginning)
        .is_some_and(|rest| rest.ends_with(end))
}

/// The last name of a path.
fn last(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// The first few of the processes.
fn named(processes: &[String]) -> String {
    let more = processes.len().saturating_sub(NAMED);
    let first = processes[..processes.len() - more].join(", ");
    match more {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(kind: WorkloadKind, name: &str) -> Workload {
        Workload {
            kind,
            name: name.to_owned(),
            cgroup: PathBuf::new(),
            pid: None,
        }
    }

    fn judged<'a>(
        workload: &'a Workload,
        cgroup: &'a str,
        change: impl Fn(&mut Facts<'a>),
    ) -> Option<Shared> {
        let mut facts = Facts {
            cgroup: Path::new(cgroup),
            workload,
            strangers: &[],
            caller: Some(Path::new("user.slice/user-0.slice/session-3.scope")),
            stays: true,
        };
        change(&mut facts);
        refuse(&facts).err()
    }

    fn process() -> Workload {
        workload(WorkloadKind::Process, "sleep (7)")
    }

    #[test]
    fn a_cgroup_of_the_workloads_own_is_not_refused() {
        for cgroup in [
            "system.slice/web.service",
            "user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope",
            r"machine.slice/machine-qemu\x2d1\x2dvm.scope",
            "docker/abc",
            "a",
            "qfences/x",
            "system.slice/init.scope",
        ] {
            assert_eq!(judged(&process(), cgroup, |_| {}), None, "{cgroup}");
        }
    }

    #[test]
    fn what_nobody_may_fence_cannot_be_insisted_on() {
        for (cgroup, words) in [
            ("", "sleep (7) is in the root of the cgroups"),
            ("qfence", "belongs to a fence"),
            ("qfence/vm1", "belongs to a fence"),
            ("init.scope", "process 1"),
            ("user.slice", "would fence itself"),
            (
                "user.slice/user-0.slice/session-3.scope",
                "would fence itself",
            ),
        ] {
            let shared = judged(&process(), cgroup, |_| {}).unwrap();
            assert!(shared.to_string().contains(words), "{cgroup}: {shared}");
            assert!(!shared.can_be_insisted_on(), "{cgroup}");
            assert!(!shared.to_string().contains("insist"), "{shared}");
        }
    }

    #[test]
    fn what_others_use_too_is_refused_with_the_way_out() {
        let user = "user.slice/user-1000.slice";
        for (cgroup, words) in [
            ("system.slice", "has every unit that names no other"),
            ("machine.slice", "has every unit that names no other"),
            (&format!("{user}/session-1.scope"), "is a login session"),
            (
                &format!("{user}/user@1000.service"),
                "service manager and all its units",
            ),
            ("system.slice/docker.service", "that of docker itself"),
            ("system.slice/libvirtd.service", "that of libvirtd itself"),
            (
                "machine.slice/libpod-conmon-ab.scope",
                "that of libpod-conmon-ab.scope itself",
            ),
            ("lxc.monitor.a", "that of lxc.monitor.a itself"),
        ] {
            let shared = judged(&process(), cgroup, |_| {}).unwrap();
            assert!(shared.to_string().contains(words), "{cgroup}: {shared}");
            assert!(shared.can_be_insisted_on(), "{cgroup}");
            assert!(shared.to_string().contains("--whole-cgroup"), "{shared}");
        }
    }

    #[test]
    fn a_slice_is_fenced_if_it_was_named() {
        let cgroup = "vms.slice/vms-a.slice";
        let shared = judged(&process(), cgroup, |_| {}).unwrap();
        let words = "sleep (7) is in the slice vms.slice/vms-a.slice itself, beside other units: name the slice (--unit \
                     vms-a.slice)";
        assert!(shared.to_string().contains(words), "{shared}");
        let unit = |name| workload(WorkloadKind::Unit, name);
        assert_eq!(judged(&unit("vms-a.slice"), cgroup, |_| {}), None);
        assert!(judged(&unit("web.service"), cgroup, |_| {}).is_some());
        let named = workload(WorkloadKind::Cgroup, cgroup);
        assert_eq!(judged(&named, cgroup, |_| {}), None);
        // Not even then.
        assert!(judged(&unit("system.slice"), "system.slice", |_| {}).is_some());
    }

    #[test]
    fn a_caller_that_leaves_is_not_in_the_way() {
        let cgroup = "system.slice/web.service";
        let unit = workload(WorkloadKind::Unit, "web.service");
        let own = |stays| {
            judged(&unit, cgroup, |facts| {
                facts.caller = Some(Path::new(cgroup));
                facts.stays = stays;
            })
        };
        assert!(matches!(own(true), Some(Shared::Caller(_))));
        assert_eq!(own(false), None);
        // A cgroup beside, whose name begins alike.
        let beside = judged(&unit, cgroup, |facts| {
            facts.caller = Some(Path::new("system.slice/web.service2"));
        });
        assert_eq!(beside, None);
    }

    #[test]
    fn other_processes_are_named() {
        let strangers: Vec<_> = (1..=7).map(|pid| format!("sshd ({pid})")).collect();
        let shared = judged(&process(), "a/app-x.scope", |facts| {
            facts.strangers = &strangers;
        });
        let words = "the cgroup a/app-x.scope has more than sleep (7): sshd (1), sshd (2), sshd (3), sshd (4), sshd (5) \
                     and 2 more; ";
        let shared = shared.unwrap();
        assert!(shared.to_string().contains(words), "{shared}");
        assert!(shared.can_be_insisted_on());
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let odd = workload(WorkloadKind::Process, "\x1b[2J");
        let shared = judged(&odd, "a\x1b.slice", |_| {}).unwrap();
        assert!(!shared.to_string().contains('\x1b'), "{shared:?}");
    }
}
