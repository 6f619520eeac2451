//! Masks the sockets of managers in a mount namespace.
//!
//! In a user namespace of a process of the fence the masks are locked: they cannot be unmounted there, nor can a
//! directory with a mask in it be mounted without the mask (mount_namespaces(7), "Restrictions on mount namespaces").

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2},
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::chdir,
};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use super::{
    Managers,
    table::{Cover, Endpoint},
};
use crate::launch::namespace;

const NONE: Option<&str> = None;

/// The file that covers sockets. A connection to it is refused, because it is not a socket (`unix_find_bsd` in
/// net/unix/af_unix.c).
const NO_SOCKET: &str = "/dev/null";

/// The most that processes can write to a directory of their own that covers another one.
const OWN_SIZE: &str = "size=16m,nr_inodes=4096";

/// A mount namespace with masks.
#[derive(Debug)]
pub struct Namespace {
    pub(super) file: File,
    pub(super) covers: Covers,
}

/// The masks in a namespace, by the index of their endpoint.
pub(super) type Covers = BTreeMap<usize, Object>;

/// The result of [`Managers::enter`].
#[derive(Debug)]
pub enum Entered {
    /// This thread is in a namespace with masks.
    Masked(Namespace),
    /// The kernel permits this process no mount namespace, for this reason. Nothing has changed.
    NotPermitted(String),
}

/// An object in the file system, as its attributes identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) is_socket: bool,
    pub(super) is_directory: bool,
    pub(super) is_symlink: bool,
    pub(super) owner: u32,
}

impl Managers {
    /// Moves this thread into a new mount namespace, and masks the managers' sockets there. The thread gets its own
    /// root and working directory. Mounts of the caller's namespace appear in the new one, and not the other way.
    ///
    /// # Errors
    /// If a socket cannot be masked, or is reachable afterwards, or the working directory is masked.
    pub(in crate::launch) fn enter(&self) -> Result<Entered> {
        let directory = env::current_dir();
        if let Err(reason) = namespace::enter()? {
            return Ok(Entered::NotPermitted(reason));
        }
        let mut covers = Covers::new();
        for index in 0..self.endpoints.len() {
            self.mask(index, &mut covers)?;
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let is_again = self.mask(index, &mut covers)?;
            ensure!(
                !is_again,
                "{} was reachable under its mask",
                endpoint.path.display()
            );
        }
        // The working directory is still the one under a mask.
        if let Ok(directory) = directory
            && let Some(endpoint) = self
                .endpoints
                .iter()
                .find(|endpoint| directory.starts_with(&endpoint.path))
        {
            chdir(&directory).with_context(|| {
                format!(
                    "the working directory belongs to {} and is not accessible in the fence (--allow-bus)",
                    endpoint.manager
                )
            })?;
        }
        let namespace = "/proc/thread-self/ns/mnt";
        let file = File::open(namespace).with_context(|| format!("cannot open {namespace}"))?;
        Ok(Entered::Masked(Namespace { file, covers }))
    }

    /// Masks what is at an endpoint, unless it is masked or there is nothing. Returns whether it did.
    pub(super) fn mask(&self, index: usize, covers: &mut Covers) -> Result<bool> {
        let Some(endpoint) = self.endpoints.get(index) else {
            return Ok(false);
        };
        let describe = || {
            format!(
                "cannot mask {} ({})",
                endpoint.path.display(),
                endpoint.manager
            )
        };
        let Some((file, object)) = self.look(endpoint)? else {
            covers.remove(&index);
            return Ok(false);
        };
        let is_manager = object.is_socket || object.is_directory;
        if !is_manager || covers.get(&index) == Some(&object) {
            return Ok(false);
        }
        let target = fd_path(&file);
        if object.is_socket {
            mount(Some(NO_SOCKET), &target, NONE, MsFlags::MS_BIND, NONE).with_context(describe)?;
        } else {
            let allowed = self.allowed_in(endpoint)?;
            let options = match endpoint.cover {
                Cover::Empty => "mode=0755,size=1m,nr_inodes=64".to_owned(),
                Cover::Own(uid, gid) => format!("mode=0700,uid={uid},gid={gid},{OWN_SIZE}"),
            };
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(
                Some("tmpfs"),
                &target,
                Some("tmpfs"),
                flags,
                Some(options.as_str()),
            )
            .with_context(describe)?;
            for (name, socket) in allowed {
                self.put_through(endpoint, &name, &socket)
                    .with_context(|| {
                        format!("cannot allow {}", endpoint.path.join(&name).display())
                    })?;
            }
        }
        let cover = self.look(endpoint)?.map(|(_, object)| object);
        let cover = cover
            .filter(|cover| *cover != object)
            .with_context(describe)?;
        covers.insert(index, cover);
        Ok(true)
    }

    /// What is at an endpoint now; `None` if there is nothing, or it is allowed.
    fn look(&self, endpoint: &Endpoint) -> Result<Option<(OwnedFd, Object)>> {
        if self.allowed.contains(&endpoint.path) {
            return Ok(None);
        }
        let describe = || {
            format!(
                "cannot examine {} ({})",
                endpoint.path.display(),
                endpoint.manager
            )
        };
        let link = || {
            format!(
                "{} ({}) is a symbolic link of its user's, which is not followed: what it leads to cannot be masked \
                 (--allow-bus starts without masks)",
                endpoint.path.display(),
                endpoint.manager
            )
        };
        let file = match open(&endpoint.path, endpoint.is_users) {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(Errno::ELOOP) => bail!(link()),
            Err(errno) => return Err(errno).with_context(describe),
        };
        match (identify(&file), endpoint.requires_owner()) {
            // Other users can put anything there, also a file system that only they can look at. No client uses that.
            (Ok(object), Some(uid)) if object.is_symlink || object.owner != uid.as_raw() => {
                Ok(None)
            }
            (Err(_), Some(_)) => Ok(None),
            (Ok(object), None) if object.is_symlink => bail!(link()),
            (object, _) => Ok(Some((file, object.with_context(describe)?))),
        }
    }

    /// The allowed sockets in a directory, with their names.
    fn allowed_in(&self, endpoint: &Endpoint) -> Result<Vec<(PathBuf, OwnedFd)>> {
        let mut found = Vec::new();
        for path in &self.allowed {
            let Ok(name) = path.strip_prefix(&endpoint.path) else {
                continue;
            };
            ensure!(
                name.components().count() == 1,
                "--allow-unix {}: {} is masked, and only sockets directly in it can be allowed",
                path.display(),
                endpoint.path.display()
            );
            let socket = open(path, true)
                .with_context(|| format!("--allow-unix {}: cannot open it", path.display()))?;
            found.push((name.to_owned(), socket));
        }
        Ok(found)
    }

    /// Mounts an allowed socket in the empty directory that covers its own.
    fn put_through(&self, endpoint: &Endpoint, name: &Path, socket: &impl AsFd) -> Result<()> {
        let (cover, _) = self.look(endpoint)?.context("it is gone")?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(&cover, name, flags, Mode::empty())?;
        let (from, to) = (fd_path(socket), fd_path(&made));
        mount(Some(&from), &to, NONE, MsFlags::MS_BIND, NONE)?;
        Ok(())
    }
}

/// Opens a path without access to its content. In a path that the user can change, no symbolic link is followed; in one of
/// the system's, links are root's and are followed, so that their target is masked.
fn open(path: &Path, is_users: bool) -> nix::Result<OwnedFd> {
    let how = match is_users {
        // Without O_NOFOLLOW a link at the end would be an error here, with it the link itself is opened.
        true => OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS),
        false => OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC),
    };
    openat2(AT_FDCWD, path, how)
}

/// Identifies an open object. A file system in user space is not asked: it may not answer.
fn identify(file: &impl AsFd) -> Result<Object> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::UID;
    let found = statx(file, "", flags, wanted)?;
    let file_type = FileType::from_raw_mode(found.stx_mode.into());
    Ok(Object {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        is_socket: file_type == FileType::Socket,
        is_directory: file_type == FileType::Directory,
        is_symlink: file_type == FileType::Symlink,
        owner: found.stx_uid,
    })
}

/// A path of an open object, which mount(2) follows to the object itself.
fn fd_path(file: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}
