//! Attempts on the files of the user, and on devices.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

use super::{Tried, tried};
use crate::verify::closures::victims::{BASE, HOME, SHARED, Victims};

fn home(name: &str) -> PathBuf {
    Path::new(HOME).join(name)
}

pub(crate) fn read_key(_: &Victims) -> Tried {
    tried(fs::read(home(".ssh/id_rsa")))
}

pub(crate) fn list_home(_: &Victims) -> Tried {
    tried(fs::read_dir(HOME))
}

pub(crate) fn append(_: &Victims) -> Tried {
    let file = File::options().append(true).open(home(".bashrc"));
    tried(file.and_then(|mut file| file.write_all(b"x")))
}

pub(crate) fn truncate(_: &Victims) -> Tried {
    let path = home(".profile");
    tried(File::options().write(true).truncate(true).open(path))
}

pub(crate) fn create_key(_: &Victims) -> Tried {
    tried(File::create_new(home(".ssh/authorized_keys")))
}

pub(crate) fn rename(_: &Victims) -> Tried {
    tried(fs::rename(home(".vimrc"), home(".vimrc-renamed")))
}

pub(crate) fn remove(_: &Victims) -> Tried {
    tried(fs::remove_file(home(".inputrc")))
}

pub(crate) fn link(_: &Victims) -> Tried {
    tried(symlink("/etc/passwd", home("link")))
}

pub(crate) fn change_mode(_: &Victims) -> Tried {
    tried(fs::set_permissions(
        home(".netrc"),
        Permissions::from_mode(0o666),
    ))
}

pub(crate) fn change_mode_of_home(_: &Victims) -> Tried {
    tried(fs::set_permissions(HOME, Permissions::from_mode(0o711)))
}

pub(crate) fn change_times(_: &Victims) -> Tried {
    // Opened for reading: only the change of the times is tried.
    let file = File::open(home(".gitconfig"));
    tried(file.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)))
}

pub(crate) fn stat(_: &Victims) -> Tried {
    tried(fs::metadata(home(".ssh/id_rsa")))
}

/// Creates a file in the directory of all users, and removes it.
pub(crate) fn create_in_tmp(_: &Victims) -> Tried {
    let path = format!("/tmp/qfence-closures-{}", process::id());
    let created = File::create_new(&path);
    if created.is_ok() {
        // Without it the attempt has succeeded all the same.
        let _ = fs::remove_file(path);
    }
    tried(created)
}

/// Opens a file through which another process shares memory.
pub(crate) fn open_in_shm(_: &Victims) -> Tried {
    tried(File::options().write(true).open(SHARED))
}

fn open_device(path: impl AsRef<Path>) -> Tried {
    tried(File::options().read(true).write(true).open(path))
}

/// Makes a new terminal.
pub(crate) fn new_terminal(_: &Victims) -> Tried {
    open_device("/dev/ptmx")
}

/// A device of file systems in user space.
pub(crate) fn fuse(_: &Victims) -> Tried {
    open_device(Path::new(BASE).join("fuse"))
}
