//! Processes outside of a workload that make its network: slirp4netns and pasta do so for containers. Such a process has
//! a tap device open that is in the workload's network namespace, and the sockets to the network are its own. A fence on
//! the workload's cgroup judges what the workload sends to the device, and not what the process makes of it.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::{files, process, taps};
use crate::base::{
    files::bounded,
    paths::Paths,
    printable::printable,
    process::{helper::Apart, open_taps::Tables},
};

/// The most bytes of the name of a process.
const NAME: u64 = 64;

/// How long the open files of all processes are looked at. Each process can let this one wait for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a user's container is started in a fence, with what makes its network: newuidmap is set-user-ID, slirp4netns opens
/// /dev/net/tun, and the user's systemd, which would make a cgroup for the container, is outside of the fence.
pub const IN_A_FENCE: &str = "`sudo qfence-user exec --allow-new-privs --allow-unfenced-net -- podman --cgroup-manager \
     cgroupfs run …`";

/// A process with an open tap device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    /// Its name and number, safe to print.
    words: String,
    /// Its cgroup below the mount; `None` if it is not visible here.
    cgroup: Option<PathBuf>,
    /// The network namespaces of its devices, by inode.
    namespaces: Vec<u64>,
}

/// The network is made by a process outside of the cgroup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the network of {workload} is made by {holder} in the cgroup {}, and a fence on {} does not see what that process \
     sends: start the container in a fence ({IN_A_FENCE}), so that both are in it, or give --allow-unfenced-net",
    cgroup.display(), fenced.display()
)]
pub struct Outside {
    /// What was to be fenced.
    workload: String,
    /// The process, by name and number.
    holder: String,
    /// Its cgroup.
    cgroup: PathBuf,
    /// The cgroup that was to be fenced.
    fenced: PathBuf,
}

/// The process outside of `cgroup` that makes the network of a workload, if there is one. `first` is a process of the
/// workload, and `hierarchy` is the cgroup that is mounted here.
///
/// # Errors
/// If /proc cannot be read.
pub fn of(
    workload: &str,
    cgroup: &Path,
    first: Pid,
    paths: &Paths,
    hierarchy: &Path,
) -> Result<Option<Outside>> {
    let namespace = namespace_of(first, paths)?;
    // The taps of this host's own namespace are guests'.
    if namespace == namespace_of(Pid::this(), paths)? {
        return Ok(None);
    }
    let holders = holders(paths, hierarchy).with_context(|| {
        format!(
            "it is unknown whether a process outside makes the network of {} (--allow-unfenced-net goes on without knowing it)",
            printable(workload.as_bytes())
        )
    })?;
    Ok(judge(workload, cgroup, namespace, &holders))
}

/// The process outside of the cgroup with a device in the namespace, if there is one.
fn judge(workload: &str, cgroup: &Path, namespace: u64, holders: &[Holder]) -> Option<Outside> {
    let is_outside = |holder: &&Holder| {
        let of = holder.cgroup.as_deref();
        holder.namespaces.contains(&namespace) && !of.is_some_and(|of| of.starts_with(cgroup))
    };
    let outside = holders.iter().find(is_outside)?;
    Some(Outside {
        workload: printable(workload.as_bytes()),
        holder: outside.words.clone(),
        cgroup: outside.cgroup.clone().unwrap_or_default(),
        fenced: cgroup.to_owned(),
    })
}

/// The network namespace of a process, by its inode.
fn namespace_of(pid: Pid, paths: &Paths) -> Result<u64> {
    let path = paths.proc.join(pid.to_string()).join("ns/net");
    let metadata = path.metadata();
    let metadata = metadata.with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(metadata.ino())
}

/// All processes with an open tap device. Processes that end meanwhile are left out.
fn holders(paths: &Paths, hierarchy: &Path) -> Result<Vec<Holder>> {
    let mut holders = Vec::new();
    let mut apart = Apart::new(&paths.proc);
    let begun = Instant::now();
    for name in files::directories(&paths.proc)? {
        ensure!(
            begun.elapsed() < PATIENCE,
            "looking at the open files of all processes takes too long"
        );
        let Ok(number) = name.parse::<i32>() else {
            continue;
        };
        let pid = Pid::from_raw(number);
        // Who is protected from root, by a security module or in a PID namespace above, makes no network for users.
        let Some(open) = taps::all(pid, Tables::First, &mut apart)? else {
            continue;
        };
        if open.taps.is_empty() {
            continue;
        }
        let mut namespaces = Vec::new();
        for descriptor in open.taps.into_values().flatten() {
            let device = taps::of_descriptor(pid, descriptor, &mut apart)?;
            namespaces.extend(device.map(|device| device.netns));
        }
        let comm = bounded::read(&paths.proc.join(&name).join("comm"), NAME).unwrap_or_default();
        holders.push(Holder {
            words: format!("{} ({pid})", printable(comm.trim_ascii_end())),
            cgroup: process::cgroup_of(pid, &paths.proc, hierarchy).ok(),
            namespaces,
        });
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(words: &str, cgroup: &str, namespaces: &[u64]) -> Holder {
        Holder {
            words: words.to_owned(),
            cgroup: Some(cgroup.into()),
            namespaces: namespaces.to_vec(),
        }
    }

    fn judged(namespace: u64, holders: &[Holder]) -> Option<String> {
        let outside = judge("web", Path::new("a/web"), namespace, holders);
        outside.map(|outside| outside.to_string())
    }

    #[test]
    fn who_makes_the_network_from_outside_is_named() {
        let slirp = holder("slirp4netns (7)", "user.slice/session-1.scope", &[11, 12]);
        let said = judged(12, std::slice::from_ref(&slirp)).unwrap();
        assert_eq!(
            said,
            "the network of web is made by slirp4netns (7) in the cgroup user.slice/session-1.scope, and a fence on a/web \
             does not see what that process sends: start the container in a fence (`sudo qfence-user exec \
             --allow-new-privs --allow-unfenced-net -- podman --cgroup-manager cgroupfs run …`), so that both are in it, \
             or give --allow-unfenced-net"
        );
        // The device of another container.
        assert_eq!(judged(13, &[slirp]), None);
        // One whose cgroup is not visible is outside.
        let mut hidden = holder("pasta (8)", "", &[12]);
        hidden.cgroup = None;
        assert!(judged(12, &[hidden]).is_some());
    }

    #[test]
    fn a_process_in_the_cgroup_is_fenced_with_it() {
        let of = |cgroup| judged(12, &[holder("slirp4netns (7)", cgroup, &[12])]);
        assert_eq!(of("a/web/below"), None);
        assert!(of("a/web2").is_some());
    }
}
