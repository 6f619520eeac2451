//! Makes a file that the command will write, so that the command need not be able to make files in its directory.

use std::path::Path;

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::{setfsgid, setfsuid},
};

use crate::base::identity::Identity;

/// Makes an empty file as a user: with the user's permissions, and for the user. An existing file stays as it is.
///
/// # Errors
/// The errors of open(2).
pub fn make_output(path: &Path, identity: Option<&Identity>) -> nix::Result<()> {
    // These are of this thread alone (setfsuid(2)). The ids before are returned.
    let before = identity.map(|identity| (setfsgid(identity.gid), setfsuid(identity.uid)));
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = open(path, flags, Mode::from_bits_truncate(0o644));
    if let Some((gid, uid)) = before {
        setfsuid(uid);
        setfsgid(gid);
    }
    match made {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use nix::unistd::{Gid, Uid, chown};

    use super::*;

    #[test]
    fn it_is_the_users_and_needs_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        let identity = Identity {
            uid,
            gid,
            groups: vec![gid],
            environment: Vec::new(),
        };
        if !Uid::effective().is_root() {
            make_output(&directory.path().join("own"), None).unwrap();
            return;
        }
        let path = directory.path().join("file");
        assert_eq!(make_output(&path, Some(&identity)), Err(Errno::EACCES));
        chown(directory.path(), Some(uid), Some(gid)).unwrap();
        make_output(&path, Some(&identity)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), 65_534);
        fs::write(&path, "kept").unwrap();
        make_output(&path, Some(&identity)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        // The ids are root's again.
        fs::write(directory.path().join("roots"), "").unwrap();
        assert_eq!(
            fs::metadata(directory.path().join("roots")).unwrap().uid(),
            0
        );
    }
}
