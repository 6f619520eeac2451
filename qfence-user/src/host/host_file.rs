//! The administrator's file of further addresses of the host, which is followed by reading it periodically.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep_until;

use super::fact::Fact;
use crate::{
    base::beat,
    policy::profile::{ProfileError, host_file::HostFile},
};

/// The time between looks at the file. Fewer looks cost many fences less.
const PERIOD: Duration = Duration::from_secs(2);

/// A file that can be followed.
#[derive(Debug)]
pub struct FollowedFile {
    path: PathBuf,
    seen: Option<Writing>,
}

/// Identifies one writing of the file, and who may write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writing {
    inode: (u64, u64),
    changed: (i64, i64),
}

impl FollowedFile {
    /// The file at `path`, whether it exists or not.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    fn writing(&self) -> Option<Writing> {
        let found = self.path.metadata().ok()?;
        Some(Writing {
            inode: (found.dev(), found.ino()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Fact for FollowedFile {
    type Value = HostFile;
    type Error = ProfileError;

    async fn read(&mut self) -> Result<HostFile, ProfileError> {
        // Before the reading: a change during it is read again.
        self.seen = self.writing();
        HostFile::read(&self.path)
    }

    async fn changed(&mut self) -> Result<(), ProfileError> {
        loop {
            sleep_until(beat::next(PERIOD)).await;
            if self.writing() != self.seen {
                return Ok(());
            }
        }
    }
}
