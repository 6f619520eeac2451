//! The nameservers in resolv.conf, which is followed by looking at it periodically, and reading it if it may have changed.
//!
//! inotify would report changes at once, but only of given files and directories, and resolv.conf can be a chain of
//! links. It allows only 128 fences (`fs.inotify.max_user_instances`), and releasing it takes the kernel about 15 ms.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::time::sleep_until;

use super::{fact::Fact, writing::LastWriting};
use crate::{
    base::{
        beat,
        files::bounded::{self, BoundedError},
    },
    policy::{
        Prefix,
        nameservers::{self, Nameserver},
        resolv_options::ResolvOptions,
    },
};

/// The time between looks, and so the longest time that a change is unnoticed.
pub const PERIOD: Duration = Duration::from_millis(500);

/// The most bytes that are read. Resolvers use only three nameservers.
const LONGEST: u64 = 64 * 1024;

/// The nameservers of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nameservers {
    /// The nameservers, in the order of the file.
    pub servers: Vec<Nameserver>,
    /// How they are asked.
    pub options: ResolvOptions,
    /// Whether resolv.conf does not exist.
    pub is_missing: bool,
}

impl Nameservers {
    /// What a resolv.conf says; `None` if there is no file.
    #[must_use]
    pub fn parse(resolv_conf: Option<&[u8]>) -> Self {
        let text = resolv_conf.unwrap_or_default();
        Self {
            servers: nameservers::list(text),
            options: ResolvOptions::read(text),
            is_missing: resolv_conf.is_none(),
        }
    }

    /// The addresses that a rule for nameservers covers, and the nameservers that it cannot cover.
    ///
    /// A rule cannot distinguish between interfaces. So it covers an address of one link only if the host has
    /// link-local addresses on no other interface: the same address on another link may be a different machine, or this
    /// host. `links` are the numbers of the interfaces with link-local addresses.
    #[must_use]
    pub fn admitted(&self, links: &BTreeSet<u32>) -> (BTreeSet<Prefix>, Vec<Nameserver>) {
        let (admitted, ambiguous): (Vec<_>, Vec<_>) =
            self.servers.iter().partition(|server| match server.zone {
                None => true,
                Some(_) => {
                    let own = server.interface();
                    links.iter().all(|link| Some(*link) == own)
                }
            });
        let addresses = admitted.into_iter().flat_map(Nameserver::prefixes);
        (
            addresses.collect(),
            ambiguous.into_iter().cloned().collect(),
        )
    }
}

impl Nameservers {
    /// The addresses that a rule for nameservers covers, of a file of processes in another network namespace. Zones name
    /// interfaces there, so addresses with a zone are not covered.
    #[must_use]
    pub fn of_another_namespace(&self) -> BTreeSet<Prefix> {
        let plain = self.servers.iter().filter(|server| server.zone.is_none());
        plain.flat_map(Nameserver::prefixes).collect()
    }
}

/// The nameservers are unknown: the file cannot be read, is too long, or is no regular file.
#[derive(Debug, Error)]
#[error("cannot read {}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    #[source]
    error: BoundedError,
}

/// A resolv.conf that can be followed.
#[derive(Debug)]
pub struct ResolvConf {
    path: PathBuf,
    /// The nameservers at the last reading; `None` if it failed.
    seen: Option<Nameservers>,
    writing: LastWriting,
}

impl ResolvConf {
    /// The file at `path`, whether it exists or not.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
            writing: LastWriting::default(),
        }
    }
}

impl Fact for ResolvConf {
    type Value = Nameservers;
    type Error = Unreadable;

    async fn read(&mut self) -> Result<Nameservers, Unreadable> {
        let found = read(&self.path);
        self.seen = found.as_ref().ok().cloned();
        found
    }

    async fn changed(&mut self) -> Result<(), Unreadable> {
        loop {
            sleep_until(beat::next(PERIOD)).await;
            if self.writing.is_same(&self.path) {
                continue;
            }
            if read(&self.path).ok() != self.seen {
                return Ok(());
            }
        }
    }
}

/// Reads the nameservers in the file at `path`. A missing file has none.
///
/// # Errors
/// If the file exists and cannot be read.
pub fn read(path: &Path) -> Result<Nameservers, Unreadable> {
    match bounded::read(path, LONGEST) {
        Ok(bytes) => Ok(Nameservers::parse(Some(&bytes))),
        Err(error) if error.is_missing() => Ok(Nameservers::parse(None)),
        Err(error) => Err(Unreadable {
            path: path.to_owned(),
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    /// Generous: a limit for hangs, not a measurement.
    const HANG: Duration = Duration::from_secs(10);
    /// Long enough to notice a change if there was one.
    const QUIET: Duration = PERIOD.saturating_mul(2);

    async fn expect_change(resolv_conf: &mut ResolvConf, nameservers: usize) {
        timeout(HANG, resolv_conf.changed())
            .await
            .expect("no change seen")
            .unwrap();
        let found = resolv_conf.read().await.unwrap();
        assert_eq!(found.servers.len(), nameservers);
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_removal_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolv_conf = ResolvConf::new(&path);
        assert_eq!(resolv_conf.read().await.unwrap().servers.len(), 0);

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
    async fn another_option_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
        let mut resolv_conf = ResolvConf::new(&path);
        resolv_conf.read().await.unwrap();
        fs::write(&path, "nameserver 127.0.0.1\noptions use-vc\n").unwrap();
        expect_change(&mut resolv_conf, 1).await;
        assert!(resolv_conf.read().await.unwrap().options.by_tcp);
    }

    #[tokio::test]
    async fn symlinks_are_followed_and_may_turn_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/resolve");
        let path = dir.path().join("resolv.conf");
        symlink("run/resolve/stub.conf", &path).unwrap();
        let mut resolv_conf = ResolvConf::new(&path);
        assert_eq!(
            resolv_conf.read().await.unwrap().servers.len(),
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
        let mut resolv_conf = ResolvConf::new(&path);
        resolv_conf.read().await.unwrap();
        fs::create_dir(&path).unwrap();
        timeout(HANG, resolv_conf.changed())
            .await
            .expect("no change seen")
            .unwrap();
        assert!(resolv_conf.read().await.is_err());
        assert!(timeout(QUIET, resolv_conf.changed()).await.is_err());
    }

    #[tokio::test]
    async fn each_kind_of_unreadable_file_is_an_error_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let why = || read(&path).unwrap_err().error;
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(
            matches!(why(), BoundedError::NotRegular("a FIFO")),
            "{}",
            why()
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "nameserver 127.0.0.1\n".repeat(4000)).unwrap();
        assert!(matches!(why(), BoundedError::TooLong(LONGEST)), "{}", why());
        fs::remove_file(&path).unwrap();
        let missing = read(&path).unwrap();
        assert!(
            missing.is_missing && missing.servers.is_empty(),
            "{missing:?}"
        );
    }

    #[tokio::test]
    async fn a_neighbour_and_a_comment_are_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "").unwrap();
        let mut resolv_conf = ResolvConf::new(&path);
        resolv_conf.read().await.unwrap();
        fs::write(dir.path().join("hosts"), "").unwrap();
        fs::write(&path, "# nothing\n").unwrap();
        assert!(timeout(QUIET, resolv_conf.changed()).await.is_err());
    }

    #[test]
    fn a_nameserver_of_one_link_is_admitted_if_there_is_no_other_link() {
        let text = b"nameserver 192.0.2.1\nnameserver fe80::1%7\nnameserver 2001:db8::1%7\n";
        let found = Nameservers::parse(Some(text));
        for (links, count) in [(&[7][..], 3), (&[], 3), (&[7, 8], 2), (&[8], 2)] {
            let (admitted, ambiguous) = found.admitted(&links.iter().copied().collect());
            assert_eq!(admitted.len(), count, "{links:?}");
            let ambiguous: Vec<_> = ambiguous.iter().map(ToString::to_string).collect();
            let expected = if count == 3 { &[][..] } else { &["fe80::1%7"] };
            assert_eq!(ambiguous, expected, "{links:?}");
        }
        let unscoped = Nameservers::parse(Some(b"nameserver fe80::1"));
        assert_eq!(unscoped.admitted(&BTreeSet::from([7, 8])).0.len(), 1);
    }
}
