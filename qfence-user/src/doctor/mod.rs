//! Checks whether this host can fence. Each group of checks has a file, in which judging is separate from reading.
//!
//! | file | checks |
//! |---|---|
//! | [`privileges`] | root and its capabilities |
//! | [`release`], [`memlock`] | the kernel's version, the limit on locked memory |
//! | [`seccomp`] | system call filters |
//! | [`cgroups`] | the cgroup2 hierarchy: mode, containment, delegated subtrees, controllers |
//! | [`classes`] | cgroup v1's net_cls and net_prio, which remove sockets from their cgroups |
//! | [`bpffs`] | the file system for pins |
//! | [`programs`] | each program, by loading and attaching it |
//! | [`foreign`] | others' programs above the fences, as returned by [`crate::kernel::query`] |
//! | [`container`] | what a container lacks of its host |
//! | [`closures`] | what a command can do to processes outside, and ask of managers |
//! | [`devices`] | network devices of guests: programs at them, and where the host receives packets |
//! | [`names`] | what rules by name need |
//! | [`nameservers`] | nameservers of the host behind NAT |
//! | [`guest`] | the machine that this one is a guest of |
//! | [`confinement`] | lockdown, security modules, unprivileged BPF and user namespaces |
//! | [`packaged`] | the programs, by the manifest that is installed with them |
//! | `throwaway` | a cgroup in which programs are tried |
//! | [`finding`], [`table`] | the result of a check, and how results are shown |

pub mod bpffs;
pub mod cgroups;
pub mod classes;
pub mod closures;
pub mod confinement;
pub mod container;
pub mod devices;
pub mod finding;
pub mod foreign;
pub mod guest;
pub mod memlock;
pub mod names;
pub mod nameservers;
pub mod packaged;
pub mod privileges;
pub mod programs;
pub mod release;
pub mod seccomp;
pub mod table;
mod throwaway;

use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit};

use crate::{base::paths::Paths, fence::hierarchy::Hierarchy, launch::child::lift_limits};
use finding::Finding;
use privileges::Privileges;

/// Makes all checks. Without root, checks that need it are `missing`.
///
/// # Errors
/// If a file that every host has, such as the mount table, cannot be read.
pub fn examine(paths: &Paths) -> Result<Vec<Finding>> {
    let privileges = Privileges::read(&paths.proc)?;
    let mut findings = privileges.judge();
    findings.push(packaged::examine(paths));

    let file = paths.proc.join("sys/kernel/osrelease");
    let release =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    findings.push(release::judge(release.trim()));
    lift_limits()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).context("cannot read RLIMIT_MEMLOCK")?;
    findings.push(memlock::judge(
        crate::base::release::parse(release.trim()),
        hard == nix::libc::RLIM_INFINITY,
        hard,
    ));

    findings.push(seccomp::examine(&paths.proc));

    let (hierarchy, of_cgroups) = cgroups::examine(&paths.mountinfo)?;
    findings.extend(of_cgroups);
    findings.push(classes::examine(&paths.proc));
    findings.extend(container::examine(paths));
    findings.push(bpffs::examine(&paths.bpffs, privileges.is_root()));
    findings.extend(if privileges.is_root() {
        programs::examine(hierarchy.as_ref())
    } else {
        programs::not_root()
    });
    findings.extend(of_others(hierarchy.as_ref(), privileges.is_root()));
    if privileges.is_root() {
        findings.extend(closures::examine(hierarchy.as_ref(), &paths.run));
    }
    findings.push(names::examine());
    findings.extend(devices::examine(&paths.proc, privileges.is_root()));
    findings.extend(confinement::examine(&paths.securityfs, &paths.proc));
    findings.extend(guest::examine(paths)?);
    Ok(findings)
}

/// Without a cgroup2 hierarchy there are no ancestors to check.
fn of_others(hierarchy: Option<&Hierarchy>, is_root: bool) -> Vec<Finding> {
    match hierarchy {
        None => Vec::new(),
        Some(_) if !is_root => vec![Finding::not_root("foreign programs")],
        Some(hierarchy) => foreign::examine(hierarchy).unwrap_or_else(|error| {
            vec![Finding::degraded(
                "foreign programs",
                format!("unknown: {error:#}"),
                "see capabilities: the query needs CAP_NET_ADMIN",
            )]
        }),
    }
}
