//! The kernel's own clocks: how long the programs of a fence take.

use std::{fs::File, os::fd::OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use qfence_common::Hook;
use qfence_user::kernel::query;
use tests::remains;

/// The kernel measures as long as this is open: not after this process, however it ends.
pub(crate) struct Clocks {
    cgroup: File,
    _stats: OwnedFd,
}

/// How long a program has run since it was loaded, and how often.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    ns: u128,
    runs: u64,
}

impl Clocks {
    /// Has the kernel measure the programs, of all fences.
    pub(crate) fn start(fence: &str) -> Result<Self> {
        Ok(Self {
            cgroup: File::open(remains::cgroup(fence)?)?,
            _stats: enable_stats(Stats::RunTime).context("have the kernel measure programs")?,
        })
    }

    /// What the program of a hook has taken up to now.
    pub(crate) fn read(&self, hook: Hook) -> Result<Clock> {
        let ids = query::attached(&self.cgroup, hook)?.programs;
        let [id] = ids[..] else {
            bail!("{} programs at {}", ids.len(), hook.name());
        };
        let program = loaded_programs()
            .flatten()
            .find(|program| program.id() == id);
        let program = program.with_context(|| format!("there is no program {id}"))?;
        Ok(Clock {
            ns: program.run_time().as_nanos(),
            runs: program.run_count(),
        })
    }
}

impl Clock {
    /// Nanoseconds a run from one moment to another, in which it must have run.
    pub(crate) fn each(self, later: Self) -> Result<f64> {
        let runs = later.runs - self.runs;
        ensure!(runs > 0, "it did not run");
        let ns = u32::try_from(later.ns - self.ns).context("a round is short")?;
        let runs = u32::try_from(runs).context("a round is short")?;
        Ok(f64::from(ns) / f64::from(runs))
    }
}
