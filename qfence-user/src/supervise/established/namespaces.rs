//! The network namespaces of the processes of a fence.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::{errno::Errno, unistd::Pid};

use crate::fence::cgroup::Cgroup;

/// The number of threads that are remembered for each namespace, in case some of them end or leave it.
const THREADS: usize = 8;

/// A network namespace. It is opened only when it is searched, so there can be more namespaces than descriptors.
pub(super) struct Namespace {
    /// The inode of its file.
    pub(super) inode: u64,
    /// Paths of its file, by threads that were in it.
    paths: Vec<PathBuf>,
}

impl Namespace {
    /// Opens the namespace; `None` if all remembered threads have ended or left it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(&self) -> Result<Option<File>> {
        for path in &self.paths {
            let context = || format!("cannot open {}", path.display());
            if let Some(file) = unless_gone(File::open(path), context)?
                && file.metadata().with_context(context)?.ino() == self.inode
            {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

/// The namespaces of all threads of a fence, and of the caller. A thread can be in another namespace than its process
/// (unshare(2)).
///
/// A process that cannot be examined is omitted, and added to `errors`.
pub(super) fn of(cgroup: &Cgroup, errors: &mut Vec<anyhow::Error>) -> Vec<Namespace> {
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
    let namespace = |(inode, paths)| Namespace { inode, paths };
    namespaces.into_iter().map(namespace).collect()
}

/// Adds the namespaces of a process.
fn add_all(namespaces: &mut BTreeMap<u64, Vec<PathBuf>>, pid: Pid) -> Result<()> {
    ensure!(
        pid.as_raw() > 0,
        "a process of the fence is in a pid namespace that is not visible here, so its \
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

/// Adds the namespace of a thread. All namespaces are on one device (nsfs), so the inode identifies each.
fn add(namespaces: &mut BTreeMap<u64, Vec<PathBuf>>, task: &Path) -> Result<()> {
    let path = task.join("ns/net");
    let context = || format!("cannot stat {}", path.display());
    let Some(file) = unless_gone(fs::metadata(&path), context)? else {
        return Ok(());
    };
    let paths = namespaces.entry(file.ino()).or_default();
    if paths.len() < THREADS {
        paths.push(path);
    }
    Ok(())
}

/// `None` if the result is the error of a thread that has ended meanwhile.
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
