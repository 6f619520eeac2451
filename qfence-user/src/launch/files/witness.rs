//! A file by which the command's process checks that its Landlock domain works: before it enters the domain it can open
//! the file, and afterwards it cannot.
//!
//! The file is on a file system that is mounted nowhere, so no rule covers it, whatever was granted.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::mounts;

/// The file.
#[derive(Debug)]
pub(in crate::launch) struct Witness {
    file: OwnedFd,
    /// Its name, which the child cannot put together.
    path: String,
}

impl Witness {
    /// Makes the file.
    ///
    /// # Errors
    /// If the kernel makes no such file system.
    pub(super) fn new() -> Result<Self> {
        let doing = "cannot make a file for the proof of Landlock";
        let mounted = mounts::temporary("0755").context(doing)?;
        let everybody = Mode::from_bits_truncate(0o644);
        let flags = OFlag::O_CREAT | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&mounted, "witness", flags, everybody).context(doing)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Self { file, path })
    }

    /// The descriptor that the child needs.
    pub(in crate::launch) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether this process can open the file. Uses system calls only.
    ///
    /// # Errors
    /// Errors of open(2) other than a lack of permission.
    pub(in crate::launch) fn can_open(&self) -> nix::Result<bool> {
        match nix::fcntl::open(
            self.path.as_str(),
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(_) => Ok(true),
            Err(Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}
