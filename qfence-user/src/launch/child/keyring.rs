//! The session keyring of a command that runs as another user (keyrings(7)).
//!
//! It is inherited, whoever its process becomes, and who has it may do with its keys whatever the caller may: the rights of
//! a possessor are not those of a user. As pam_keyinit(8) does for login(1) and su(1), the command gets another one.

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

/// More than a description can be long, in bytes: what does not fit is not written at all (`keyctl_describe_key` in
/// security/keys/keyctl.c; `KEY_MAX_DESC_SIZE` for the name of the keyring, which is last).
const LENGTH: usize = 4096 + 128;

/// Gives this process a new session keyring, and no key in it, unless the one that it has is `user`'s own. It makes system
/// calls alone; to be called by a process that is still root, and has one thread.
///
/// The keyring is root's: the user may have as many keys as may be (/proc/sys/kernel/keys/maxkeys), and an earlier command
/// can have seen to that. Who has it may use it all the same.
///
/// # Errors
/// What the kernel says, but for that it has no keys (ENOSYS), or that a filter refuses all calls for them (EPERM), to the
/// command as well.
pub(super) fn leave_to(user: Uid) -> io::Result<()> {
    let mut description = [0; LENGTH];
    // Whoever has none gets that of the real user, as it would on its first use of it. Root comes back by the saved one.
    set_real_and_effective(user)?;
    let described = describe(&mut description);
    set_real_and_effective(Uid::from_raw(0))?;
    if described.is_ok() && owner(&description) == Some(user.as_raw()) {
        return Ok(());
    }
    // What is of others, or cannot be looked at.
    match join_another() {
        // The kernel itself says EACCES (`key_task_permission` in security/keys/permission.c).
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        joined => Ok(joined?),
    }
}

fn join_another() -> nix::Result<()> {
    // SAFETY: a null pointer asks for a keyring without a name.
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
    // SAFETY: the kernel writes no more than that many bytes.
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

/// The owner in a description, `keyring;UID;…`; `None` if there is none to be read.
fn owner(description: &[u8]) -> Option<u32> {
    let uid = description.split(|byte| *byte == b';').nth(1)?;
    std::str::from_utf8(uid).ok()?.parse().ok()
}

fn set_real_and_effective(uid: Uid) -> nix::Result<()> {
    let (uid, saved) = (c_long::from(uid.as_raw()), c_long::from(-1));
    // SAFETY: numbers alone. Not by the C library, which would have the threads of the parent do the same.
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
