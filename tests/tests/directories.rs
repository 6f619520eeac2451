//! What a fenced process can do to qfence's own directories: nothing. Whoever could open a fence's
//! directory could lock it, and pass for its supervisor.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use tests::{fence::Fence, world::World};

/// Where the fences' cgroups are.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut points = mounts.lines().filter(|line| line.contains(" cgroup2 "));
    let point = points.next().and_then(|line| line.split(' ').nth(1));
    Ok(PathBuf::from(point.context("no cgroup2 is mounted")?).join("qfence"))
}

/// Runs a script in a fence; `$1` is the directory of all fences, `$2` the fence's own.
fn inside(user: &str, script: &str) -> Result<String> {
    let world = World::new()?;
    let fence = Fence::new("directories")?.with(&["--user", user]);
    let all = cgroups()?;
    let own = all.join(fence.name());
    let output = fence
        .command(&world.host, "sh")
        .args(["-c", script, "sh"])
        .args([&all, &own])
        .output()?;
    Ok(String::from_utf8(output.stdout)?)
}

const LOCK: &str = "for d in \"$1\" \"$2\" /run/qfence /sys/fs/bpf/qfence; do \
                    flock --nonblock --shared \"$d\" true 2>/dev/null; echo $?; done";

#[test]
fn a_fenced_process_can_lock_none_of_them() -> Result<()> {
    // flock(1): 66 is "cannot open", 1 "somebody else has the lock", 0 "locked".
    assert_eq!(inside("nobody", LOCK)?, "66\n66\n66\n66\n");
    // The control: root opens them all, and finds the fence's own marked by its supervisor.
    let root = inside("root", LOCK)?;
    let root: Vec<&str> = root.lines().collect();
    assert!(root.iter().all(|status| *status != "66"), "{root:?}");
    let marked = "grep -q \"OFDLCK .*:$(stat -c %i \"$2\") \" /proc/locks && echo marked";
    assert_eq!(inside("root", marked)?, "marked\n");
    Ok(())
}

#[test]
fn a_fenced_process_can_read_its_limits_and_not_leave() -> Result<()> {
    let script = "cat \"$2/cgroup.max.depth\"; echo $$ 2>/dev/null > \"$1/../cgroup.procs\" && echo left; \
                  echo $$ 2>/dev/null > \"$2/cgroup.procs\" && echo moved; mkdir \"$2/below\" && echo made; \
                  ls \"$1\" && echo listed";
    assert_eq!(inside("nobody", script)?, "max\n");
    // The control: root can leave, which is why a command that stays root gets a warning.
    assert!(inside("root", script)?.contains("left\n"));
    Ok(())
}
