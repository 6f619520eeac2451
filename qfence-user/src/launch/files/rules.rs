//! Opens the granted paths, and makes the rules of the Landlock domain.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Error, Result, anyhow, bail, ensure};
use landlock::{ABI, Access as _, AccessFs, BitFlags, PathBeneath};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use crate::confinement::Grants;

/// The version of Landlock whose rights are restricted: it has all that concern files, ioctl(2) on devices included
/// (Linux 6.10).
pub(in crate::launch) const RIGHTS: ABI = ABI::V5;

/// Why root can be refused, and what to do.
const NOT_ROOTS: &str = "its file system gives root less than its user (FUSE without allow_root or allow_other, NFS with \
                         root_squash), and root opens what is granted: mount it with allow_root or no_root_squash, or \
                         use a directory on another file system";

/// What the command may do with a file, or with all files below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Read and execute.
    Read,
    /// Also change.
    Change,
    /// Make sockets in a directory, and remove files there.
    Make,
    /// Write, without reading.
    Write,
    /// Change all but symbolic links: a path in the directory leads to nothing outside of it. Nothing can be moved there
    /// either, because each granted tree is a mount of its own (rename(2), link(2): EXDEV).
    ChangeOwn,
}

/// A rule: a file or directory, and what the command may do with it.
#[derive(Debug)]
pub(in crate::launch) struct Rule {
    /// The path without symbolic links.
    pub(super) path: PathBuf,
    /// Opened with `O_PATH`.
    pub(super) file: OwnedFd,
    kind: FileType,
    pub(super) right: Right,
}

impl Rule {
    /// A rule to change a directory.
    pub(super) fn changing(path: PathBuf, file: OwnedFd) -> Self {
        Self {
            path,
            file,
            kind: FileType::Directory,
            right: Right::Change,
        }
    }

    /// Opens a path and follows its links. The rule is for what is there now.
    ///
    /// # Errors
    /// The errors of open(2).
    pub(super) fn open(path: &Path, right: Right) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open(&path, flags, Mode::empty())?;
        let kind = kind(&file)?;
        Ok(Self {
            path,
            file,
            kind,
            right,
        })
    }

    /// The same for Landlock.
    pub(in crate::launch) fn landlock(&self) -> PathBeneath<&OwnedFd> {
        PathBeneath::new(&self.file, self.rights())
    }

    fn rights(&self) -> BitFlags<AccessFs> {
        let read = AccessFs::Execute | AccessFs::ReadFile;
        let all = match (self.right, self.kind) {
            (Right::Read, FileType::Directory) => read | AccessFs::ReadDir,
            // A drive or a sound card is read by ioctl(2) too.
            (Right::Read, _) if self.is_device() => read | AccessFs::IoctlDev,
            (Right::Read, _) => read,
            (Right::Change, _) => AccessFs::from_all(RIGHTS),
            (Right::ChangeOwn, _) => AccessFs::from_all(RIGHTS) & !AccessFs::MakeSym,
            (Right::Write, _) => AccessFs::WriteFile | AccessFs::Truncate,
            (Right::Make, _) => AccessFs::MakeSock | AccessFs::RemoveFile,
        };
        match self.kind {
            FileType::Directory => all,
            _ => all & AccessFs::from_file(RIGHTS),
        }
    }

    /// Whether the rule is for something in a directory, or to change what is in it.
    pub(super) fn needs(&self, directory: &Path) -> bool {
        let is_around = directory.starts_with(&self.path);
        (self.path.starts_with(directory) && self.right != Right::Make)
            || (is_around && self.right == Right::Change)
    }

    pub(super) fn is_regular(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub(super) fn is_device(&self) -> bool {
        matches!(self.kind, FileType::CharacterDevice | FileType::BlockDevice)
    }
}

/// The rule of the directory for temporary files.
///
/// # Errors
/// The errors of open(2).
pub(super) fn of_own(directory: &Path) -> io::Result<Rule> {
    Rule::open(directory, Right::ChangeOwn)
}

/// The rules of what was granted. Each path must exist.
///
/// # Errors
/// If a path cannot be opened, or is one that leaves nothing closed.
pub(super) fn of(grants: &Grants) -> Result<Vec<Rule>> {
    let sets = [
        (&grants.read, Right::Read, "--allow-read"),
        (&grants.write, Right::Change, "--allow-write"),
        (&grants.make, Right::Make, "its directory"),
    ];
    let mut rules = Vec::new();
    for (paths, right, option) in sets {
        for path in paths {
            let rule = Rule::open(path, right).map_err(|error| {
                let words = format!("{option} {}: cannot open it", path.display());
                match error.kind() {
                    io::ErrorKind::PermissionDenied => anyhow!("{words}: {error}: {NOT_ROOTS}"),
                    _ => Error::new(error).context(words),
                }
            })?;
            ensure!(
                right != Right::Change || rule.path != Path::new("/"),
                "--allow-write /: this leaves no file closed; give --strict a list without `files` instead"
            );
            if right == Right::Make && rule.kind != FileType::Directory {
                bail!("{} is no directory", path.display());
            }
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// Opens a directory again, with `O_PATH`.
///
/// # Errors
/// The errors of open(2).
pub(super) fn reopen(directory: &impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(directory, ".", flags, Mode::empty())?)
}

/// The type of an open file. A file system in user space is not asked: it may not answer.
fn kind(file: &impl AsFd) -> io::Result<FileType> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(file, "", flags, StatxFlags::TYPE)?;
    Ok(FileType::from_raw_mode(found.stx_mode.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(read: &Path, write: &Path) -> Grants {
        Grants {
            read: [read.to_owned()].into(),
            write: [write.to_owned()].into(),
            ..Grants::default()
        }
    }

    #[test]
    fn a_right_is_one_of_the_kind_of_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let rules = of(&grants(&file, directory.path())).unwrap();
        let [read, change] = &rules[..] else {
            panic!("{rules:?}")
        };
        assert_eq!(read.rights(), AccessFs::Execute | AccessFs::ReadFile);
        assert_eq!(change.rights(), AccessFs::from_all(RIGHTS));
        let null = Rule::open(Path::new("/dev/null"), Right::Read).unwrap();
        assert!(null.rights().contains(AccessFs::IoctlDev));
        assert!(!null.rights().contains(AccessFs::WriteFile));
    }

    #[test]
    fn what_does_not_exist_or_is_everything_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let error = of(&grants(directory.path(), &missing)).unwrap_err();
        assert!(format!("{error:#}").contains("--allow-write"), "{error:#}");
        let error = of(&grants(directory.path(), Path::new("/"))).unwrap_err();
        assert!(
            format!("{error:#}").contains("leaves no file closed"),
            "{error:#}"
        );
    }

    #[test]
    fn a_link_is_followed_to_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        let rule = Rule::open(&link, Right::Read).unwrap();
        assert_eq!(rule.path, Path::new("/usr"));
    }
}
