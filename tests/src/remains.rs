//! What there is of a fence outside its processes: to be complete while it stands, and nothing
//! afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// Where the machine's cgroup2 hierarchy is mounted.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").context("read the mounts")?;
    let point = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let is_it = after.starts_with("cgroup2 ");
        is_it.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    };
    let found = mounts.lines().find_map(point);
    found.context("no cgroup2 is mounted")
}

/// The cgroup of a fence, whether it is there or not.
pub fn cgroup(name: &str) -> Result<PathBuf> {
    Ok(cgroup2_mount()?.join("qfence").join(name))
}

/// The processes in a fence.
pub fn pids(name: &str) -> Result<Vec<u32>> {
    let path = cgroup(name)?.join("cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// The files and directories there are of a fence; a whole one has four.
pub fn of(name: &str) -> Result<Vec<PathBuf>> {
    let mut all = vec![
        cgroup(name)?,
        Path::new("/sys/fs/bpf/qfence").join(name),
        Path::new("/run/qfence").join(format!("{name}.json")),
        Path::new("/run/qfence").join(format!("{name}.policy")),
    ];
    all.retain(|path| path.exists());
    Ok(all)
}

/// Makes sure that nothing is there of a fence.
pub fn ensure_none(name: &str) -> Result<()> {
    let left = of(name)?;
    ensure!(left.is_empty(), "left of {name}: {left:?}");
    Ok(())
}

/// Makes sure that all is there of a fence.
pub fn ensure_whole(name: &str) -> Result<()> {
    let there = of(name)?;
    ensure!(there.len() == 4, "all there is of {name}: {there:?}");
    Ok(())
}
