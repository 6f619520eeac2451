//! Whether a log file that exists may be appended to: whose it is, and who can read from it.

use nix::{
    sys::stat::{FileStat, SFlag},
    unistd::{Uid, geteuid},
};

use super::{file_type::other_than_regular, walk::Refusal};
use crate::base::identity::Callers;

/// The bit of a mode that lets everybody write.
const FOR_ALL: u32 = 0o002;

/// The bits that let users other than the owner read. With an access control list, the bits of the group are the mask
/// of all entries (`posix_acl_equiv_mode` in fs/posix_acl.c).
const TO_READ: u32 = 0o044;

/// The users whose links are followed, and whose files are appended to in a directory that everybody can write to.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// Root. Only root's links are followed. The command usually runs as the user who called sudo, so a process in the
    /// fence can have made that user's links, also between two openings of the log.
    pub(super) root: u32,
    /// The user who called sudo, doas or pkexec.
    pub(super) caller: Option<u32>,
    /// The user that the command runs as; `None` for root.
    pub(super) command: Option<u32>,
}

impl Trusted {
    /// Root and the user who called sudo, doas or pkexec, for a command that runs as `user`; `None` is root.
    #[must_use]
    pub fn from_env(user: Option<Uid>) -> Self {
        Self {
            root: geteuid().as_raw(),
            caller: Callers::from_env().user().map(Uid::as_raw),
            command: user.filter(|user| !user.is_root()).map(Uid::as_raw),
        }
    }

    fn owns_files(&self, user: u32) -> bool {
        user == self.root || Some(user) == self.caller
    }

    /// Checks an existing file in a directory that others can write to.
    ///
    /// # Errors
    /// If it is another user's, or has several names.
    pub(super) fn check_shared(
        &self,
        directory: &FileStat,
        found: &FileStat,
    ) -> Result<(), Refusal> {
        let is_theirs = self.owns_files(found.st_uid) || found.st_uid == directory.st_uid;
        if directory.st_mode & FOR_ALL != 0 && !is_theirs {
            return Err(Refusal::OtherUser);
        }
        if other_than_regular(found.st_mode).is_none() && found.st_nlink > 1 {
            return Err(Refusal::SecondName);
        }
        Ok(())
    }

    /// Checks a FIFO. Each line reaches one reader only, so any other reader takes lines away.
    ///
    /// # Errors
    /// If others than its owner can read it, or the command can.
    pub(super) fn check_fifo(&self, found: &FileStat) -> Result<(), Refusal> {
        if found.st_mode & TO_READ != 0 {
            return Err(Refusal::ReadableFifo);
        }
        if Some(found.st_uid) == self.command {
            return Err(Refusal::CommandsFifo);
        }
        Ok(())
    }
}

/// Whether a file is a FIFO.
pub(super) fn is_fifo(file: &FileStat) -> bool {
    SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO
}
