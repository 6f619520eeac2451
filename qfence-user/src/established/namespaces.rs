//! The network namespaces that the processes of a fence are in.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    unistd::Pid,
};

use super::diag::Diag;
use crate::cgroup::Cgroup;

/// A socket to ask each namespace by, and the namespace's inode: those of all threads of a fence, and
/// the caller's own. A thread can be in another than its process (unshare(2)).
///
/// A process that cannot be looked at, or a namespace that cannot be entered, is left out and among
/// the `errors`.
pub(super) fn of(cgroup: &Cgroup, errors: &mut Vec<anyhow::Error>) -> Vec<(u64, Diag)> {
    let mut namespaces = BTreeMap::new();
    errors.extend(add(&mut namespaces, Path::new("/proc/thread-self")).err());
    match cgroup.pids() {
        Ok(pids) => {
            let added = pids.into_iter().map(|pid| add_all(&mut namespaces, pid));
            errors.extend(added.filter_map(Result::err));
        }
        Err(error) => {
            let directory = cgroup.directory().display();
            errors.push(anyhow!(error).context(format!("cannot list {directory}")));
        }
    }
    let mut entered = Vec::new();
    for (inode, namespace) in namespaces {
        match enter(&namespace) {
            Ok(diag) => entered.push((inode, diag)),
            Err(error) => errors.push(error),
        }
    }
    entered
}

/// Adds the namespaces of a process.
fn add_all(namespaces: &mut BTreeMap<u64, File>, pid: Pid) -> Result<()> {
    ensure!(
        pid.as_raw() > 0,
        "a process of the fence is in a pid namespace that is not seen from here, so its \
         connections cannot be found"
    );
    let tasks = format!("/proc/{pid}/task");
    let context = || format!("cannot list {tasks}");
    let Some(entries) = unless_gone(fs::read_dir(&tasks), context)? else {
        return Ok(());
    };
    for task in entries {
        let Some(task) = unless_gone(task, context)? else {
            return Ok(());
        };
        add(namespaces, &task.path())?;
    }
    Ok(())
}

/// Adds the namespace of a thread. All of them are on one device (nsfs), so the inode tells them apart.
fn add(namespaces: &mut BTreeMap<u64, File>, task: &Path) -> Result<()> {
    let path = task.join("ns/net");
    let context = || format!("cannot open {}", path.display());
    let Some(file) = unless_gone(File::open(&path), context)? else {
        return Ok(());
    };
    let inode = file.metadata().with_context(context)?.ino();
    namespaces.entry(inode).or_insert(file);
    Ok(())
}

/// A socket is of the namespace it was made in, wherever it is used from.
fn enter(namespace: &File) -> Result<Diag> {
    // The thread is thrown away: what it has entered it stays in.
    let enter = || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .context("cannot enter a network namespace of the fence")?;
        Diag::open()
    };
    thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|_| Err(anyhow!("a thread in a network namespace has failed")))
}

/// `None` for what was about a thread that has ended since.
fn unless_gone<T>(result: io::Result<T>, what: impl Fn() -> String) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(what),
    }
}
