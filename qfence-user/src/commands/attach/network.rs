//! The network of the target, as far as it is not this host's: the addresses of its network namespaces, and the
//! nameservers of its resolv.conf.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::target::{Found, Home};
use crate::{
    base::{
        console::notify,
        files::in_root,
        paths::Paths,
        process::helper::{Apart, Question},
    },
    cli::Attach,
    fence::cgroup::Cgroup,
    host::{
        nameservers::Nameservers,
        workload::{Namespaces, WorkloadNetwork},
    },
    kernel::within::cookie_of,
    workload::{Target, oci::resolver},
};

/// The most processes and namespaces that are looked at: a workload can make any number.
const PROCESSES: usize = 1 << 16;
const NAMESPACES: usize = 64;

/// The network of the target, to be followed.
///
/// # Errors
/// If its own loopback addresses are to be allowed and it has none, or this kernel cannot recognise them.
pub(super) fn of(
    options: &Attach,
    target: &Target,
    found: &Found,
    home: &Home,
    paths: &Paths,
) -> Result<WorkloadNetwork> {
    if options.pod_loopback {
        ensure!(
            home.netns.is_some(),
            "--pod-loopback: {} has no process in a network namespace of its own: its loopback addresses are this host's",
            found.words()
        );
        cookie_of(None).context(
            "--pod-loopback: this kernel does not show the cookies of network namespaces (Linux 5.14)",
        )?;
    }
    let first = match found.workload.pid {
        None => found.cgroup.pids()?.first().copied(),
        first => first,
    };
    Ok(WorkloadNetwork {
        namespaces: namespaces(found, paths)?,
        nameservers: nameservers(target, &found.words(), first, paths),
        pod_loopback: options.pod_loopback,
    })
}

/// The cookie of this process's network namespace, which has the addresses of the host, if the target can be in another one.
/// 0 if it cannot, or the kernel does not show it.
pub(super) fn node_cookie(home: &Home, found: &Found) -> Result<u64> {
    // What is started later in a cgroup without processes may have any.
    if home.netns.is_none() && !found.cgroup.pids()?.is_empty() {
        return Ok(0);
    }
    Ok(cookie_of(None).unwrap_or(0))
}

/// Opens the network namespaces of the target's processes, other than this process's.
///
/// A namespace that a user of the workload made, in a user namespace of their own, is left out: its addresses are chosen by
/// that user, and its services are the user's own.
fn namespaces(found: &Found, paths: &Paths) -> Result<Namespaces> {
    let here = Path::new("/proc/thread-self/ns");
    let own = fs::metadata(here.join("net"))?.ino();
    let mut users = BTreeSet::from([fs::metadata(here.join("user"))?.ino()]);
    if let Some(pid) = found.workload.pid {
        let namespace = paths.proc.join(pid.to_string()).join("ns/user");
        users.extend(fs::metadata(namespace).map(|namespace| namespace.ino()));
    }
    let (cgroup, first, proc) = (found.cgroup.clone(), found.workload.pid, paths.proc.clone());
    Ok(Arc::new(move || {
        open_each(&cgroup, first, &proc, own, &users)
    }))
}

fn open_each(
    cgroup: &Cgroup,
    first: Option<Pid>,
    proc: &Path,
    own: u64,
    users: &BTreeSet<u64>,
) -> io::Result<Vec<File>> {
    let mut seen = BTreeSet::from([own]);
    let mut files = Vec::new();
    let inode = |path: PathBuf| fs::metadata(path).map(|namespace| namespace.ino());
    // The first process of a container that is being started need not be in its cgroup.
    for pid in cgroup.pids()?.into_iter().chain(first).take(PROCESSES) {
        let namespaces = proc.join(pid.to_string()).join("ns");
        // A process can end at any time, and with it the namespace.
        let (Ok(net), Ok(user)) = (
            inode(namespaces.join("net")),
            inode(namespaces.join("user")),
        ) else {
            continue;
        };
        if !users.contains(&user) || files.len() == NAMESPACES || !seen.insert(net) {
            continue;
        }
        if let Ok(file) = File::open(namespaces.join("net"))
            && file.metadata()?.ino() == net
        {
            files.push(file);
        }
    }
    Ok(files)
}

/// The nameservers of the target; `None` if its resolv.conf is this host's, or it has no process. `words` name the target, and
/// `first` is its first process. If they cannot be read, there are none.
pub(super) fn nameservers(
    target: &Target,
    words: &str,
    first: Option<Pid>,
    paths: &Paths,
) -> Option<Nameservers> {
    of_target(target, first, paths).unwrap_or_else(|error| {
        notify(format_args!(
            "warning: no nameserver of {words} is excepted: {error:#}"
        ));
        Some(Nameservers::default())
    })
}

fn of_target(target: &Target, first: Option<Pid>, paths: &Paths) -> Result<Option<Nameservers>> {
    if let Target::Starting { bundle, .. } = target {
        let own = resolver::read(bundle)?;
        return Ok(Some(Nameservers::parse(own.as_deref())));
    }
    let Some(pid) = first else {
        return Ok(None);
    };
    let answer = Apart::new(&paths.proc).ask(Question::Resolver(pid.as_raw()));
    let answer = answer.and_then(|answer| Ok(in_root::parse(&answer)?));
    let own =
        answer.with_context(|| format!("cannot read the resolv.conf of the process {pid}"))?;
    let here = fs::metadata(&paths.resolv_conf);
    let here = here.ok().map(|here| (here.dev(), here.ino()));
    if own.as_ref().map(|own| own.identity) == here {
        return Ok(None);
    }
    Ok(Some(Nameservers::parse(
        own.as_ref().map(|own| &*own.bytes),
    )))
}
