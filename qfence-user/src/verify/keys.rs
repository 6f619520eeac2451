//! A key request for which the kernel executes a helper as root, outside of the fence.

use std::ffi::c_long;

use nix::{errno::Errno, libc};

use super::calls::{Call, Called};

/// `KEY_SPEC_PROCESS_KEYRING` of linux/keyctl.h. Keys in this keyring end with the process.
const PROCESS_KEYRING: c_long = -2;

/// The call that requests the key.
#[must_use]
pub fn call() -> Call {
    Call {
        attempt: "request_key, calling out",
        words: vec!["request-key".into()],
        // The kernel has executed the helper and these are its results, or there is no helper to execute.
        late: &[Errno::ENOKEY, Errno::EKEYREJECTED, Errno::ENOENT],
        closure: "seccomp",
        short: true,
    }
}

/// Requests a key that does not exist and that no helper makes, of a type that is not looked up over a network.
#[must_use]
pub fn ask() -> Called {
    Called::make(|| {
        // SAFETY: the pointers are to zero-terminated strings; the rest is a number.
        let key = unsafe {
            libc::syscall(
                libc::SYS_request_key,
                c"user".as_ptr(),
                c"qfence:verify".as_ptr(),
                c"verify".as_ptr(),
                PROCESS_KEYRING,
            )
        };
        Errno::result(key)
    })
}
