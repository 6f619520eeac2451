//! Follows resolv.conf: the file, the directories it can be replaced in, and every symlink between.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use inotify::{Inotify, WatchMask};
use tokio::io::unix::AsyncFd;

use crate::{nameservers, policy::Prefix, readable::readable};

/// As many symlinks as the kernel follows in one path (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Room for the events of one read.
const EVENT_BUFFER: usize = 4096;

/// A resolv.conf that is being followed.
pub struct ResolvConf {
    path: PathBuf,
    watches: Watches,
}

struct Watches {
    inotify: AsyncFd<Inotify>,
    /// The names, in any of the watched directories, that make up the path.
    names: BTreeSet<OsString>,
}

impl ResolvConf {
    /// Starts to follow the file at `path`, which need not be there. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If inotify has no room for the watches.
    pub fn follow(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            watches: Watches::new(path)?,
        })
    }

    /// Starts to follow the same path anew.
    ///
    /// # Errors
    /// As [`ResolvConf::follow`].
    pub fn again(&self) -> Result<Self> {
        Self::follow(&self.path)
    }

    /// The nameservers in the file now. A file that is not there has none.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn nameservers(&self) -> Result<BTreeSet<Prefix>> {
        read(&self.path)
    }

    /// Waits until the file may have changed, by whatever means. The new path is followed already
    /// when this returns, so that what is read next misses nothing.
    ///
    /// # Errors
    /// If inotify fails, so that nothing is followed any more.
    pub async fn changed(&mut self) -> Result<()> {
        self.watches
            .changed()
            .await
            .with_context(|| format!("following {}", self.path.display()))?;
        self.watches = Watches::new(&self.path)?;
        Ok(())
    }
}

/// The nameservers in the file at `path` now. A file that is not there has none.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn read(path: &Path) -> Result<BTreeSet<Prefix>> {
    match fs::read(path) {
        Ok(bytes) => Ok(nameservers::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

impl Watches {
    fn new(path: &Path) -> Result<Self> {
        let context = || format!("cannot watch {} with inotify", path.display());
        let inotify = Inotify::init().with_context(context)?;
        let mut names = BTreeSet::new();
        let mut hop = path.to_owned();
        for _ in 0..MAX_SYMLINKS {
            let (directory, name) = nearest_directory(&hop);
            let anything = WatchMask::CREATE
                | WatchMask::MOVE
                | WatchMask::DELETE
                | WatchMask::CLOSE_WRITE
                | WatchMask::ATTRIB
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF;
            inotify
                .watches()
                .add(directory, anything)
                .with_context(context)?;
            names.insert(name.to_owned());
            match fs::read_link(&hop) {
                Ok(target) => hop = hop.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => break,
            }
        }
        // The file itself as well: where it is a mount of its own (as in containers), writes to it
        // are not seen from its directory.
        match inotify
            .watches()
            .add(path, WatchMask::CLOSE_WRITE | WatchMask::ATTRIB)
        {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(context),
        }
        let inotify = readable(inotify).with_context(context)?;
        Ok(Self { inotify, names })
    }

    async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable_mut().await?;
            let names = &self.names;
            let relevant = ready.try_io(|inotify| {
                let mut buffer = [0; EVENT_BUFFER];
                let events = inotify.get_mut().read_events(&mut buffer)?;
                // An event without a name is about a watched file or directory itself, or says that
                // the queue overflowed.
                Ok(events
                    .into_iter()
                    .any(|event| event.name.is_none_or(|name| names.contains(name))))
            });
            match relevant {
                Ok(Ok(true)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }
}

/// The deepest directory above `path` that exists, and the name in it that leads on to `path`.
fn nearest_directory(path: &Path) -> (&Path, &OsStr) {
    let mut below = path;
    for directory in path.ancestors().skip(1) {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        if directory.is_dir() {
            return (directory, below.file_name().unwrap_or(below.as_os_str()));
        }
        below = directory;
    }
    (
        Path::new("/"),
        below.file_name().unwrap_or(below.as_os_str()),
    )
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use tokio::time::timeout;

    use super::*;

    /// Generous: a hang, not a measure.
    const HANG: Duration = Duration::from_secs(10);
    /// Long enough for an event that should not come to come.
    const QUIET: Duration = Duration::from_millis(200);

    fn count(resolv_conf: &ResolvConf) -> usize {
        resolv_conf.nameservers().unwrap().len()
    }

    async fn expect_change(resolv_conf: &mut ResolvConf, nameservers: usize) {
        // A change can come in several events (create, write, close): the last one tells.
        while count(resolv_conf) != nameservers {
            timeout(HANG, resolv_conf.changed())
                .await
                .expect("no change seen")
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_removal_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut resolv_conf = ResolvConf::follow(&path).unwrap();
        assert_eq!(count(&resolv_conf), 0);

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
        let mut resolv_conf = ResolvConf::follow(&path).unwrap();
        assert_eq!(count(&resolv_conf), 0, "the link dangles");

        fs::create_dir_all(&run).unwrap();
        timeout(HANG, resolv_conf.changed())
            .await
            .expect("no change seen")
            .unwrap();
        fs::write(run.join("stub.conf"), "nameserver 127.0.0.53").unwrap();
        expect_change(&mut resolv_conf, 1).await;

        let other = dir.path().join("other.conf");
        fs::write(&other, "nameserver 127.0.0.1\nnameserver 127.0.0.2").unwrap();
        symlink(&other, dir.path().join("link")).unwrap();
        fs::rename(dir.path().join("link"), &path).unwrap();
        expect_change(&mut resolv_conf, 2).await;
    }

    #[tokio::test]
    async fn a_neighbour_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolv_conf = ResolvConf::follow(&dir.path().join("resolv.conf")).unwrap();
        fs::write(dir.path().join("hosts"), "").unwrap();
        assert!(timeout(QUIET, resolv_conf.changed()).await.is_err());
    }
}
