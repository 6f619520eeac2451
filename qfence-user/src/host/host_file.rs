//! The administrator's file of further addresses of the host, which is followed by reading it periodically.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep_until;

use super::{fact::Fact, writing::LastWriting};
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
    /// The last content; `None` if it was invalid.
    seen: Option<HostFile>,
    writing: LastWriting,
}

impl FollowedFile {
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

impl Fact for FollowedFile {
    type Value = HostFile;
    type Error = ProfileError;

    async fn read(&mut self) -> Result<HostFile, ProfileError> {
        let found = HostFile::read(&self.path);
        self.seen = found.as_ref().ok().cloned();
        found
    }

    async fn changed(&mut self) -> Result<(), ProfileError> {
        loop {
            sleep_until(beat::next(PERIOD)).await;
            if self.writing.is_same(&self.path) {
                continue;
            }
            if HostFile::read(&self.path).ok() != self.seen {
                return Ok(());
            }
        }
    }
}
