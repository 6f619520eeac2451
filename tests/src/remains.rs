//! The parts of a fence outside its processes: all must exist while the fence does, and none afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// The mount point of the machine's cgroup2 hierarchy.
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

/// The path of a fence's cgroup, whether or not it exists.
pub fn cgroup(name: &str) -> Result<PathBuf> {
    Ok(cgroup2_mount()?.join("qfence").join(name))
}

/// The processes in a fence.
pub fn pids(name: &str) -> Result<Vec<u32>> {
    let path = cgroup(name)?.join("cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// The existing files and directories of a fence. A complete fence has four.
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

/// The messages of a command without those about fences of other tests: if such a fence was killed, the next command clears
/// its remains and says so.
#[must_use]
pub fn without_clearing(stderr: &str) -> String {
    const CLEARING: &str = "qfence: clearing the remains of the fence ";
    let lines = stderr.split_inclusive('\n');
    lines.filter(|line| !line.starts_with(CLEARING)).collect()
}

/// Checks that no part of a fence exists.
pub fn ensure_none(name: &str) -> Result<()> {
    let left = of(name)?;
    ensure!(left.is_empty(), "left of {name}: {left:?}");
    Ok(())
}

/// Checks that all parts of a fence exist.
pub fn ensure_whole(name: &str) -> Result<()> {
    let there = of(name)?;
    ensure!(there.len() == 4, "all there is of {name}: {there:?}");
    Ok(())
}
