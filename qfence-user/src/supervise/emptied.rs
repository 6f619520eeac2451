//! Notices at once that a cgroup has got processes, has lost its last one, or was removed.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use tokio::io::{Interest, unix::AsyncFd};

use crate::base::readable::urgent;

/// Changes of whether a cgroup has processes.
pub(super) struct Emptied {
    events: AsyncFd<File>,
}

impl Emptied {
    /// Watches the file that the kernel reports changes of (`cgroup.events`, cgroups(7)).
    ///
    /// # Errors
    /// If it cannot be opened, read or polled.
    pub(super) fn watch(cgroup: &Path) -> Result<Self> {
        let path = cgroup.join("cgroup.events");
        let doing = || format!("cannot watch {}", path.display());
        let file = File::open(&path).with_context(doing)?;
        let events = urgent(file).with_context(doing)?;
        let mut emptied = Self { events };
        // The kernel reports changes since the last read.
        emptied.read()?;
        Ok(emptied)
    }

    fn read(&mut self) -> Result<()> {
        let file = self.events.get_mut();
        let mut text = Vec::new();
        match file.rewind().and_then(|()| file.read_to_end(&mut text)) {
            Err(error) if error.raw_os_error() != Some(nix::libc::ENODEV) => {
                Err(error).context("cannot read cgroup.events")
            }
            // ENODEV: the cgroup was removed, and so is not populated.
            _ => Ok(()),
        }
    }

    /// Waits for a change. Cancel-safe.
    ///
    /// # Errors
    /// If it cannot be polled or read.
    pub(super) async fn changed(&mut self) -> Result<()> {
        let mut ready = self
            .events
            .ready_mut(Interest::PRIORITY)
            .await
            .context("cannot wait for changes of the cgroup")?;
        ready.clear_ready();
        drop(ready);
        self.read()
    }
}
