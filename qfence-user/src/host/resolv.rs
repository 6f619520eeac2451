//! Follows resolv.conf, by reading it every now and then.
//!
//! inotify would tell at once, but of each file and directory that may stand behind the path; it has room for
//! 128 fences (`fs.inotify.max_user_instances`), and to let go of it takes the kernel some 15 ms.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    base::{files::bounded, say::say},
    policy::{Prefix, nameservers},
};

/// How long a change may go unseen.
pub const PERIOD: Duration = Duration::from_millis(500);

/// The longest file that is read, in bytes. Resolvers take three nameservers of it.
const LONGEST: u64 = 64 * 1024;

/// A resolv.conf that is being followed.
#[derive(Debug)]
pub struct ResolvConf {
    path: PathBuf,
    /// What was in it when it was last read; `None` if it could not be.
    seen: Option<BTreeSet<Prefix>>,
    looks: Interval,
    /// Whether the failure to read it has been told.
    is_told: bool,
}

impl ResolvConf {
    /// Starts to follow the file at `path`, which need not be there. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(path: &Path) -> Self {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            path: path.to_owned(),
            seen: None,
            looks,
            is_told: false,
        }
    }

    /// The nameservers in the file now. A file that is not there has none.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn nameservers(&mut self) -> Result<BTreeSet<Prefix>> {
        let found = read(&self.path);
        self.seen = found.as_ref().ok().cloned();
        found
    }

    /// The nameservers in the file now; those of `before` if it cannot be read, for a file that is being
    /// written, or a disk that fails, is no reason to take its DNS from a command. That is said once, and once
    /// more when it can be read again.
    pub fn nameservers_or(&mut self, before: &BTreeSet<Prefix>) -> BTreeSet<Prefix> {
        let found = self.nameservers();
        if found.is_err() != self.is_told {
            self.is_told = found.is_err();
            match &found {
                Err(error) => say(format_args!(
                    "error: {error:#}: {}",
                    what_stays(before.len())
                )),
                Ok(_) => say(format_args!("{} can be read again", self.path.display())),
            }
        }
        found.unwrap_or_else(|_| before.clone())
    }

    /// Waits until other nameservers are in the file than when it was last read, or it can no longer be
    /// read. Nothing is lost if it is not awaited to its end.
    pub async fn changed(&mut self) {
        loop {
            self.looks.tick().await;
            if read(&self.path).ok() != self.seen {
                return;
            }
        }
    }
}

/// What becomes of the nameservers when the file cannot be read.
#[must_use]
pub fn what_stays(nameservers: usize) -> String {
    match nameservers {
        0 => "it named no nameserver before, and none is excepted".into(),
        1 => "the nameserver that it named last stays excepted".into(),
        _ => format!("the {nameservers} nameservers that it named last stay excepted"),
    }
}

/// The nameservers in the file at `path` now. A file that is not there has none.
///
/// # Errors
/// If the file is there and cannot be read: it may not be, is too long, or is no regular file.
pub fn read(path: &Path) -> Result<BTreeSet<Prefix>> {
    match bounded::read(path, LONGEST) {
        Ok(bytes) => Ok(nameservers::parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    /// Generous: a hang, not a measure.
    const HANG: Duration = Duration::from_secs(10);
    /// Long enough for a change to be seen if there was one.
    const QUIET: Duration = PERIOD.saturating_mul(2);

    async fn expect_change(resolv_conf: &mut ResolvConf, nameservers: usize) {
        timeout(HANG, resolv_conf.changed())
            .await
            .expect("no change seen");
        assert_eq!(resolv_conf.nameservers().unwrap().len(), nameservers);
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_removal_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolv_conf = ResolvConf::follow(&path);
        assert_eq!(resolv_conf.nameservers().unwrap().len(), 0);

        fs::write(&path, "nameserver 127.0.0.1").unwrap();
        expect_change(&mut resolv_conf, 1).await;

        let new = dir.path().join("resolv.conf.new");
        fs::write(&new, "nameserver 127.0.0.1\nnameserver 127.0.0.2").unwrap();
        fs::rename(&new, &path).unwrap();
        expect_change(&mut resolv_conf, 2).await;

        fs::remove_file(&path).unwrap();
        expect_change(&mut resolv_conf, 0).await;
    }

    #[tokio::test]
    async fn symlinks_are_followed_and_may_turn_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/resolve");
        let path = dir.path().join("resolv.conf");
        symlink("run/resolve/stub.conf", &path).unwrap();
        let mut resolv_conf = ResolvConf::follow(&path);
        assert_eq!(
            resolv_conf.nameservers().unwrap().len(),
            0,
            "the link dangles"
        );

        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("stub.conf"), "nameserver 127.0.0.53").unwrap();
        expect_change(&mut resolv_conf, 1).await;

        let other = dir.path().join("other.conf");
        fs::write(&other, "nameserver 127.0.0.1\nnameserver 127.0.0.2").unwrap();
        symlink(&other, dir.path().join("link")).unwrap();
        fs::rename(dir.path().join("link"), &path).unwrap();
        expect_change(&mut resolv_conf, 2).await;
    }

    #[tokio::test]
    async fn what_cannot_be_read_any_more_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolv_conf = ResolvConf::follow(&path);
        resolv_conf.nameservers().unwrap();
        fs::create_dir(&path).unwrap();
        timeout(HANG, resolv_conf.changed())
            .await
            .expect("no change seen");
        assert!(resolv_conf.nameservers().is_err());
        assert!(timeout(QUIET, resolv_conf.changed()).await.is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_read_leaves_those_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolv_conf = ResolvConf::follow(&path);
        fs::write(&path, "nameserver 127.0.0.53").unwrap();
        let before = resolv_conf.nameservers_or(&BTreeSet::new());
        assert_eq!(before.len(), 1);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(resolv_conf.nameservers_or(&before), before);
        assert!(resolv_conf.is_told);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "nameserver 127.0.0.1\n".repeat(4000)).unwrap();
        assert_eq!(resolv_conf.nameservers_or(&before), before, "too long");
        // A file that is not there is one without nameservers.
        fs::remove_file(&path).unwrap();
        assert_eq!(resolv_conf.nameservers_or(&before), BTreeSet::new());
        assert!(!resolv_conf.is_told);
    }

    #[tokio::test]
    async fn a_neighbour_and_a_comment_are_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolv_conf = ResolvConf::follow(&path);
        resolv_conf.nameservers().unwrap();
        fs::write(dir.path().join("hosts"), "").unwrap();
        fs::write(&path, "# nothing\n").unwrap();
        assert!(timeout(QUIET, resolv_conf.changed()).await.is_err());
    }
}
