//! A cgroup of a test. Whatever runs in it ends with it.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::libc;

use crate::remains::cgroup2_mount;

/// The time limit for the kernel to release a cgroup after its processes have ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cgroup below the root of the hierarchy. It is accessed by a descriptor, independent of mounts. Dropping it ends its
/// processes.
#[derive(Debug)]
pub struct Cgroup {
    hierarchy: OwnedFd,
    name: String,
}

impl Cgroup {
    /// Makes a cgroup, with all controllers that can be enabled in it.
    pub fn new(name: String) -> Result<Self> {
        let mount = cgroup2_mount()?;
        // The available controllers, for tests of limits. In a container this process may be unable to enable them; a
        // test that needs one reports that.
        for controller in fs::read_to_string(mount.join("cgroup.controllers"))?.split_whitespace() {
            let _ = fs::write(
                mount.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        let cgroup = Self {
            hierarchy: descriptor(&mount)?,
            name,
        };
        fs::create_dir(cgroup.path()).context("make a cgroup (this needs root)")?;
        Ok(cgroup)
    }

    /// Its name in the root of the hierarchy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, which is valid in this process only.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        by_descriptor(&self.hierarchy).join(&self.name)
    }

    /// Ends the processes in the cgroup, and removes it with all descendants.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        fs::write(self.path().join("cgroup.kill"), "1").context("kill what the test left")?;
        while let Err(error) = remove_with_all_below(&self.path()) {
            if Instant::now() >= deadline {
                return Err(error).with_context(|| format!("remove the cgroup {}", self.name));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.path().exists() {
            // A destructor cannot report an error, and another error has occurred already.
            let _ = self.remove();
        }
    }
}

fn remove_with_all_below(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_with_all_below(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(cgroup)?)
}

/// A descriptor of a file or directory that only refers to its location (`O_PATH`).
pub(crate) fn descriptor(path: &Path) -> Result<OwnedFd> {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path);
    Ok(opened
        .with_context(|| format!("open {}", path.as_os_str().as_bytes().escape_ascii()))?
        .into())
}

pub(crate) fn by_descriptor(descriptor: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into()
}

/// Lets a command join a cgroup before it is executed.
pub(crate) fn join(command: &mut Command, cgroup: &Path) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    let procs = File::options().write(true).open(&procs);
    let procs = procs.context("open the file of a cgroup's processes")?;
    // SAFETY: the closure makes one system call between fork and exec, and does not allocate.
    unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
    Ok(())
}
