//! bpffs, the file system in which a fence's links are pinned.

use std::{path::Path, thread};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
};

use super::finding::Finding;
use crate::kernel::{bpffs::mount_bpffs, pins::Pins};

const NAME: &str = "bpffs";

/// The state of the mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Mounted,
    ReadOnly,
    Not,
}

/// Checks whether bpffs is mounted at `bpffs`, and if not, whether it can be.
#[must_use]
pub fn examine(bpffs: &Path, is_root: bool) -> Finding {
    let mounted = statfs(bpffs).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    let read_only = statvfs(bpffs).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    let there = match (mounted, read_only) {
        (true, false) => There::Mounted,
        (true, true) => There::ReadOnly,
        (false, _) => There::Not,
    };
    if there == There::Mounted
        && is_root
        && let Err(error) = Pins::new(bpffs).check()
    {
        return Finding::missing(
            NAME,
            format!("other users can change it: {error:#}"),
            "make it writable for root only".to_owned(),
        );
    }
    let trial = (there == There::Not && is_root).then(|| try_mount(bpffs));
    judge(bpffs, there, trial)
}

fn judge(bpffs: &Path, there: There, trial: Option<Result<()>>) -> Finding {
    let place = bpffs.display();
    let advice = format!("`mount -t bpf bpf {place}`; in a container, mount a writable one");
    match (there, trial) {
        (There::Mounted, _) => Finding::ok(NAME, format!("mounted at {place}")),
        (There::ReadOnly, _) => Finding::missing(
            NAME,
            format!("mounted read-only at {place}"),
            format!("`mount -o remount,rw {place}`"),
        ),
        (There::Not, None) => Finding::not_root(NAME),
        (There::Not, Some(Ok(()))) => Finding::ok(
            NAME,
            format!("not mounted at {place}; `exec` will mount it"),
        ),
        (There::Not, Some(Err(error))) => {
            Finding::missing(NAME, format!("not mounted: {error:#}"), advice)
        }
    }
}

/// Mounts bpffs for a thread of its own, which then ends.
fn try_mount(bpffs: &Path) -> Result<()> {
    let mount_it = || {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace for the trial")?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .context("cannot make mounts private for the trial")?;
        mount_bpffs(bpffs)
    };
    thread::scope(|scope| scope.spawn(mount_it).join())
        .unwrap_or_else(|_| Err(anyhow!("the trial has failed")))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn it_is_there_or_can_be_or_is_missing() {
        let state = |there, trial| judge(Path::new("/sys/fs/bpf"), there, trial).state;
        assert_eq!(state(There::Mounted, None), State::Ok);
        assert_eq!(state(There::ReadOnly, None), State::Missing);
        assert_eq!(state(There::Not, Some(Ok(()))), State::Ok);
        assert_eq!(state(There::Not, Some(Err(anyhow!("no")))), State::Missing);
        assert_eq!(state(There::Not, None), State::Missing);
    }

    #[test]
    fn another_file_system_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let finding = examine(dir.path(), false);
        assert_eq!(finding.state, State::Missing);
        let finding = examine(&dir.path().join("none"), false);
        assert_eq!(finding.state, State::Missing);
    }
}
