//! Ways to the network that no program at a cgroup of the workload sees: tap devices.
//!
//! The frames of a tap device are of no socket. If a process of the workload has the device open, a guest of its sends
//! through it. If a process outside has one open that is in the workload's network namespace (slirp4netns and pasta make
//! the network of a rootless container so), the sockets to the network are of that process.

mod tun;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use super::{files, process};
use crate::base::{files::bounded, paths::Paths, printable::printable};

/// The device file of all tap devices.
const TUN: &str = "/dev/net/tun";

/// The most bytes of the name of a process.
const NAME: u64 = 64;

/// The most open files of one process that are looked at: the kernel's default for `fs.nr_open`.
const OPEN: usize = 1 << 20;

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

/// Why a fence on the cgroup would not see the workload's traffic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// A process outside makes the network.
    #[error(
        "the network of {workload} is made by {holder} in the cgroup {}, and a fence on {} does not see what that \
         process sends: start the container in a fence (`qfence-user exec -- podman run …`), so that both are in it",
        cgroup.display(), fenced.display()
    )]
    Outside {
        /// What was to be fenced.
        workload: String,
        /// The process, by name and number.
        holder: String,
        /// Its cgroup.
        cgroup: PathBuf,
        /// The cgroup that was to be fenced.
        fenced: PathBuf,
    },
    /// A process of the workload sends frames.
    #[error(
        "{holder} of {workload} has a tap device open, whose frames a fence on {} does not see: start it in a fence, \
         which fences its devices too (`qfence-user exec`), or give --allow-unfenced-net",
        fenced.display()
    )]
    Inside {
        /// What was to be fenced.
        workload: String,
        /// The process, by name and number.
        holder: String,
        /// The cgroup that was to be fenced.
        fenced: PathBuf,
    },
}

/// Refuses a workload part of whose traffic a fence on `cgroup` would not see. `first` is a process of the workload, and
/// `hierarchy` is the cgroup that is mounted here.
///
/// # Errors
/// [`Unseen`], or if /proc cannot be read.
pub fn refuse(
    workload: &str,
    cgroup: &Path,
    first: Option<Pid>,
    paths: &Paths,
    hierarchy: &Path,
) -> Result<()> {
    let namespace = match first {
        Some(pid) => Some(namespace_of(pid, paths)?),
        None => None,
    };
    // The taps of this host's own namespace are other guests'.
    let own = namespace_of(Pid::this(), &Paths::default())?;
    let namespace = namespace.filter(|namespace| *namespace != own);
    match judge(workload, cgroup, namespace, &holders(paths, hierarchy)?) {
        Some(unseen) => Err(unseen.into()),
        None => Ok(()),
    }
}

/// Whether one of the processes carries traffic that a fence on the cgroup does not see.
fn judge(
    workload: &str,
    cgroup: &Path,
    namespace: Option<u64>,
    holders: &[Holder],
) -> Option<Unseen> {
    let workload = || printable(workload.as_bytes());
    let is_inside = |holder: &&Holder| {
        let of = holder.cgroup.as_deref();
        of.is_some_and(|of| of.starts_with(cgroup))
    };
    if let Some(inside) = holders.iter().find(is_inside) {
        return Some(Unseen::Inside {
            workload: workload(),
            holder: inside.words.clone(),
            fenced: cgroup.to_owned(),
        });
    }
    let namespace = namespace?;
    let outside = holders
        .iter()
        .find(|holder| holder.namespaces.contains(&namespace))?;
    Some(Unseen::Outside {
        workload: workload(),
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
    for name in files::directories(&paths.proc)? {
        let Ok(number) = name.parse::<i32>() else {
            continue;
        };
        let pid = Pid::from_raw(number);
        let descriptors = match open_taps(&paths.proc.join(&name).join("fd")) {
            // It has ended, or is a thread of the kernel.
            Err(error) if is_gone(&error) => continue,
            descriptors => descriptors
                .with_context(|| format!("cannot list the open files of the process {pid}"))?,
        };
        if descriptors.is_empty() {
            continue;
        }
        let mut namespaces = Vec::new();
        for descriptor in descriptors {
            namespaces.extend(tun::namespace(pid, descriptor)?);
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

fn is_gone(error: &io::Error) -> bool {
    let errors = [nix::libc::ENOENT, nix::libc::ESRCH];
    error
        .raw_os_error()
        .is_some_and(|error| errors.contains(&error))
}

/// The descriptors in a directory /proc/PID/fd that are of the device file of taps.
fn open_taps(directory: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)?.take(OPEN) {
        let entry = entry?;
        // It may be closed meanwhile.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        if target == Path::new(TUN) {
            found.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<i32>().ok()),
            );
        }
    }
    Ok(found)
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

    fn judged(namespace: Option<u64>, holders: &[Holder]) -> Option<String> {
        let unseen = judge("web", Path::new("a/web"), namespace, holders);
        unseen.map(|unseen| unseen.to_string())
    }

    #[test]
    fn who_makes_the_network_from_outside_is_named() {
        let slirp = holder("slirp4netns (7)", "user.slice/session-1.scope", &[12]);
        let said = judged(Some(12), std::slice::from_ref(&slirp)).unwrap();
        assert_eq!(
            said,
            "the network of web is made by slirp4netns (7) in the cgroup user.slice/session-1.scope, and a fence on a/web \
             does not see what that process sends: start the container in a fence (`qfence-user exec -- podman run …`), \
             so that both are in it"
        );
        // The device of another container, and a workload in the namespace of this host.
        assert_eq!(judged(Some(13), std::slice::from_ref(&slirp)), None);
        assert_eq!(judged(None, &[slirp]), None);
    }

    #[test]
    fn a_tap_of_the_workload_itself_is_named() {
        for namespace in [Some(12), None] {
            let said = judged(namespace, &[holder("qemu (7)", "a/web/emulator", &[5])]).unwrap();
            assert!(
                said.starts_with("qemu (7) of web has a tap device open"),
                "{said}"
            );
        }
        assert_eq!(judged(None, &[holder("qemu (7)", "a/web2", &[5])]), None);
    }
}
