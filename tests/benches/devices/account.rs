//! The processor time of everything that takes part in a measurement: the guest, the relay of its frames, the server, and the
//! kernel's work for them. Unlike a throughput it does not depend on how many processors are free.

use std::{fs, path::PathBuf, process};

use anyhow::{Context as _, Result};
use tests::remains::cgroup2_mount;

/// A cgroup of this process, and of what it starts from now on. The process leaves it when this is dropped.
pub(crate) struct Account {
    before: PathBuf,
    cgroup: PathBuf,
}

impl Account {
    /// Opens an account. All that is to be counted must be started after this, and ended before the account is dropped.
    pub(crate) fn open() -> Result<Self> {
        let mount = cgroup2_mount()?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let account = Self {
            before: mount.join(own.context("find the cgroup of this process")?),
            cgroup: mount.join(format!("qfence-bench-{}", process::id())),
        };
        fs::create_dir(&account.cgroup).context("make a cgroup (this needs root)")?;
        fs::write(account.cgroup.join("cgroup.procs"), "0").context("enter the cgroup")?;
        Ok(account)
    }

    /// The processor time up to now, in microseconds.
    pub(crate) fn read(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.cgroup.join("cpu.stat"))?;
        let usage = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage
            .context("read the processor time of a cgroup")?
            .parse()?)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // A destructor cannot report errors. A cgroup that is not empty stays.
        let _ = fs::write(self.before.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.cgroup);
    }
}
