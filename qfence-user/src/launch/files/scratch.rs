//! The command's directory for temporary files. The host's are closed, because other programs keep files and sockets there.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::AT_FDCWD,
    unistd::{FchownatFlags, fchownat, mkdtemp},
};

use crate::base::{console::notify, identity::Identity};

/// The parent directory: on disk, since a guest's snapshot can be large.
const PARENT: &str = "/var/tmp";

/// The most time that removing takes; a file system in user space may not answer.
const MOST: Duration = Duration::from_secs(20);

/// A directory for temporary files, which is removed when this value is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    owner: Option<(u32, u32)>,
    is_kept: bool,
}

impl Scratch {
    /// Makes the directory, for a user.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(identity: Option<&Identity>) -> Result<Self> {
        let doing = || format!("cannot make a directory for temporary files in {PARENT}");
        let path = mkdtemp(&Path::new(PARENT).join("qfence-XXXXXX")).with_context(doing)?;
        let scratch = Self {
            path,
            owner: identity.map(|identity| (identity.uid.as_raw(), identity.gid.as_raw())),
            is_kept: false,
        };
        if let Some(Identity { uid, gid, .. }) = identity {
            let flags = FchownatFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(AT_FDCWD, &scratch.path, Some(*uid), Some(*gid), flags).with_context(doing)?;
        }
        Ok(scratch)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory, for processes that remain.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = remove(&self.path, self.owner) {
            notify(format_args!(
                "error: cannot remove the command's temporary files in {}: {error}",
                self.path.display()
            ));
        }
    }
}

/// Removes a directory of a user, by a process of this user: a fenced process wrote what is in it.
fn remove(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    // Most often it is empty.
    if fs::remove_dir(path).is_ok() {
        return Ok(());
    }
    let begun = Instant::now();
    let rm = ["rm", "-rf", "--one-file-system", "--"];
    run(&rm, path, owner, begun)?;
    if is_gone(path) {
        return Ok(());
    }
    // Only root can remove what is in directories that are read-only. Go's module cache has such directories.
    run(&["chmod", "-R", "u+rwX", "--"], path, owner, begun)?;
    run(&rm, path, owner, begun)?;
    if is_gone(path) {
        return Ok(());
    }
    Err(io::Error::other("some of them remain"))
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Runs a program on the directory as its owner, and waits until it ends, at most until [`MOST`] after `begun`.
fn run(words: &[&str], path: &Path, owner: Option<(u32, u32)>, begun: Instant) -> io::Result<()> {
    let [program, options @ ..] = words else {
        return Ok(());
    };
    let mut command = Command::new(program);
    command.args(options).arg(path);
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    let mut process = command.spawn()?;
    while process.try_wait()?.is_none() {
        if begun.elapsed() > MOST {
            process.kill()?;
            return Err(io::Error::other("it takes too long"));
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, chown},
    };

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn it_is_removed_with_what_is_in_it_and_kept_if_asked() {
        let mut kept = Scratch::new(None).unwrap();
        kept.keep();
        let path = kept.path().to_owned();
        drop(kept);
        assert!(path.is_dir());
        let again = Scratch {
            path: path.clone(),
            owner: None,
            is_kept: false,
        };
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/b"), "x").unwrap();
        drop(again);
        assert!(!path.exists());
    }

    /// Root removes what is in a directory without write permission, so the directory is another user's.
    #[test]
    fn directories_without_write_permission_are_removed() {
        const NOBODY: u32 = 65534;
        assert!(geteuid().is_root(), "this test changes the owner of files");
        let path = mkdtemp(&Path::new(PARENT).join("qfence-XXXXXX")).unwrap();
        let module = path.join("module");
        fs::create_dir(&module).unwrap();
        let file = module.join("file");
        fs::write(&file, "x").unwrap();
        for path in [&file, &module, &path] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(&module, Permissions::from_mode(0o555)).unwrap();
        remove(&path, Some((NOBODY, NOBODY))).unwrap();
        assert!(!path.exists());
    }
}
