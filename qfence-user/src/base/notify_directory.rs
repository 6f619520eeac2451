//! The directory of the sockets by which commands in fences send notifications for systemd. Root makes them, and every user
//! may pass through, because a command is its user's.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// Its mode.
const MODE: u32 = 0o711;

/// Its path, beside the directory of the descriptions.
#[must_use]
pub fn directory(run: &Path) -> PathBuf {
    let mut path = OsString::from(run);
    path.push(".notify");
    path.into()
}

/// Makes it, if it does not exist.
///
/// # Errors
/// If it cannot be made, or others can write to it.
pub fn prepare(run: &Path) -> Result<PathBuf> {
    let path = directory(run);
    let context = || format!("cannot make {}", path.display());
    match fs::DirBuilder::new().mode(MODE).create(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => {
            made.with_context(context)?;
            // Independent of the umask.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(MODE);
            fs::set_permissions(&path, mode).with_context(context)?;
        }
    }
    let found = fs::symlink_metadata(&path).with_context(context)?;
    ensure!(
        found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0,
        "{} is not a directory of root's alone: remove it",
        path.display()
    );
    Ok(path)
}

/// Removes the sockets that nobody receives from, because their supervisor was killed.
///
/// # Errors
/// If one cannot be removed.
pub fn sweep(run: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory(run)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_socket() {
            continue;
        }
        let socket = UnixDatagram::unbound()?;
        let refused = socket.connect(entry.path());
        if refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a socket; a missing one is no error.
///
/// # Errors
/// Errors of unlink.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("qfence");
        sweep(&run).unwrap();
        let directory = directory(&run);
        fs::create_dir(&directory).unwrap();
        let living = UnixDatagram::bind(directory.join("living")).unwrap();
        drop(UnixDatagram::bind(directory.join("dead")).unwrap());
        fs::write(directory.join("other"), "").unwrap();
        sweep(&run).unwrap();
        assert!(directory.join("living").exists() && directory.join("other").exists());
        assert!(!directory.join("dead").exists());
        drop(living);
    }
}
