//! The facts of the host for one change of a policy. They are read where the fence is: in its network namespace, and from its
//! resolv.conf.

use std::{
    fs::{self, File},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use tokio::runtime;

use crate::{
    base::paths::Paths,
    fence::registry::Fences,
    host::{Here, devices::Devices},
    kernel::within::within,
    policy::profile::host_file::HostFile,
    stored_policy::{StoredPolicy, netns},
};

/// At how many processes of a fence to look for its network namespace.
const LOOKS: usize = 256;

/// What is read.
pub(super) struct Facts {
    pub(super) here: Here,
    /// The network devices; none if the fence has none.
    pub(super) devices: Devices,
}

/// Where the facts of a fence are read.
pub(super) struct Surroundings {
    netns: u64,
    namespace: Namespace,
    has_devices: bool,
    paths: Paths,
}

enum Namespace {
    /// That of this process.
    Own,
    Other(File),
    /// No process that is known to be in it runs.
    Unknown,
}

impl Surroundings {
    /// Those of the fence `name`, which has this policy.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub(super) fn of(
        fences: &Fences,
        paths: &Paths,
        name: &str,
        stored: &StoredPolicy,
    ) -> Result<Self> {
        let mut paths = paths.clone();
        if let Some(path) = &stored.resolv_conf {
            paths.resolv_conf.clone_from(path);
        }
        let namespace = if stored.netns == netns()? {
            Namespace::Own
        } else {
            find(fences, &paths, name, stored.netns).map_or(Namespace::Unknown, Namespace::Other)
        };
        Ok(Self {
            netns: stored.netns,
            namespace,
            has_devices: !stored.devices.is_empty(),
            paths,
        })
    }

    /// Whether they are those of the addresses in a stored policy.
    pub(super) const fn are_of(&self, stored: &StoredPolicy) -> bool {
        self.netns == stored.netns
    }

    /// Reads the facts; `None` if the namespace cannot be found. `is_whole` is whether to read the administrator's
    /// file, and to ask the nameservers for translators. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If a fact other than the nameservers cannot be read, or the namespace not be entered.
    pub(super) async fn read(&self, is_whole: bool) -> Result<Option<Facts>> {
        match &self.namespace {
            Namespace::Own => self.read_here(is_whole).await.map(Some),
            Namespace::Other(file) => self.read_in(file, is_whole).map(Some),
            Namespace::Unknown => Ok(None),
        }
    }

    async fn read_here(&self, is_whole: bool) -> Result<Facts> {
        Ok(Facts {
            here: match is_whole {
                true => Here::read(&self.paths).await?,
                false => Here::read_with(HostFile::default(), &self.paths).await?,
            },
            devices: match self.has_devices {
                true => Devices::read().await?,
                false => Devices::default(),
            },
        })
    }

    /// Reads them in another namespace.
    fn read_in(&self, namespace: &File, is_whole: bool) -> Result<Facts> {
        within(Some(namespace.as_fd()), || {
            runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the event loop")?
                .block_on(self.read_here(is_whole))
        })
    }
}

/// Finds the network namespace with this inode: that of the supervisor, or of a process in the fence.
fn find(fences: &Fences, paths: &Paths, name: &str, wanted: u64) -> Option<File> {
    let supervisor = fences
        .description(name)
        .map(|description| description.supervisor);
    let inside = fences.place(name).pids().unwrap_or_default();
    let inside = inside.iter().map(|pid| pid.as_raw());
    let candidates = supervisor.into_iter().chain(inside).take(LOOKS);
    let file_of = |pid: i32| -> PathBuf { paths.proc.join(format!("{pid}/ns/net")) };
    candidates
        .map(file_of)
        .filter(|path| fs::metadata(path).is_ok_and(|found| found.ino() == wanted))
        .filter_map(|path| File::open(path).ok())
        // The number may be that of another process since.
        .find(|file| file.metadata().is_ok_and(|found| found.ino() == wanted))
}
