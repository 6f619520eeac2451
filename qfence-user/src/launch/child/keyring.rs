//! The session keyring of a command that runs as another user (keyrings(7)).
//!
//! A session keyring is inherited across a change of user, and gives its possessor all rights of the caller to its
//! keys: the rights of a possessor do not depend on the user. So the command gets a new one, as pam_keyinit(8) does for
//! login(1) and su(1).

use std::{
    ffi::{c_char, c_int, c_long},
    io, ptr,
};

use nix::{errno::Errno, libc, unistd::Uid};

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const JOIN_SESSION_KEYRING: c_int = 1;
/// `KEYCTL_DESCRIBE`.
const DESCRIBE: c_int = 6;
/// `KEY_SPEC_SESSION_KEYRING`.
const SESSION_KEYRING: c_int = -3;

/// A size in bytes that is larger than any description. The kernel writes nothing if the buffer is too small
/// (`keyctl_describe_key` in security/keys/keyctl.c; the name of the keyring, which is last, has at most
/// `KEY_MAX_DESC_SIZE` bytes).
const LENGTH: usize = 4096 + 128;

/// Gives this process a new, empty session keyring, unless its current one belongs to `user`. Uses system calls only.
/// Must be called by a process that is still root, and has one thread.
///
/// The keyring belongs to root. A user may already have the maximum number of keys (/proc/sys/kernel/keys/maxkeys),
/// which an earlier command can cause. The user can use it anyway, as its possessor.
///
/// # Errors
/// The errors of the kernel, except ENOSYS (the kernel has no keys) and EPERM (a filter refuses all calls for keys, for
/// the command too).
pub(super) fn leave_to(user: Uid) -> io::Result<()> {
    let mut description = [0; LENGTH];
    // A process without a session keyring gets that of its real user, as it would on first use. The saved user id
    // allows the return to root.
    set_real_and_effective(user)?;
    let described = describe(&mut description);
    set_real_and_effective(Uid::from_raw(0))?;
    if described.is_ok() && owner(&description) == Some(user.as_raw()) {
        return Ok(());
    }
    // It belongs to another user, or cannot be described.
    match join_another() {
        // Without a filter, the kernel returns EACCES (`key_task_permission` in security/keys/permission.c).
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        joined => Ok(joined?),
    }
}

fn join_another() -> nix::Result<()> {
    // SAFETY: a null pointer requests a keyring without a name.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            ptr::null::<c_char>(),
        )
    };
    Errno::result(joined).map(drop)
}

/// Describes the session keyring: its type, owner, group, permissions and name.
fn describe(description: &mut [u8; LENGTH]) -> nix::Result<()> {
    // SAFETY: the kernel writes at most this many bytes.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            DESCRIBE,
            SESSION_KEYRING,
            description.as_mut_ptr(),
            LENGTH,
        )
    };
    Errno::result(length).map(drop)
}

/// The owner in a description, `keyring;UID;…`; `None` if it cannot be parsed.
fn owner(description: &[u8]) -> Option<u32> {
    let uid = description.split(|byte| *byte == b';').nth(1)?;
    std::str::from_utf8(uid).ok()?.parse().ok()
}

fn set_real_and_effective(uid: Uid) -> nix::Result<()> {
    let (uid, saved) = (c_long::from(uid.as_raw()), c_long::from(-1));
    // SAFETY: the arguments are numbers. The C library's function is not used, because it would change the threads of
    // the parent.
    let set = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, saved) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_the_second_field() {
        assert_eq!(owner(b"keyring;1000;100;3f130000;_ses"), Some(1000));
        assert_eq!(owner(b"keyring;0;0;3f"), Some(0));
        assert_eq!(owner(&[0; LENGTH]), None);
        assert_eq!(owner(b"keyring;;"), None);
    }
}
