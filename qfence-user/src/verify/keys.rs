//! A key that the kernel has somebody fetch: a program of root's, outside of the fence.

use std::ffi::c_long;

use nix::{errno::Errno, libc};

use super::calls::{Call, Called};

/// `KEY_SPEC_PROCESS_KEYRING` of linux/keyctl.h: what comes of it ends with the process.
const PROCESS_KEYRING: c_long = -2;

/// To ask for one.
#[must_use]
pub fn call() -> Call {
    Call {
        attempt: "request_key, calling out",
        words: vec!["request-key".into()],
        // The kernel has called out, and that is what came back; or that there is no program to call.
        late: &[Errno::ENOKEY, Errno::EKEYREJECTED, Errno::ENOENT],
        closure: "seccomp",
        short: true,
    }
}

/// Asks for a key that nobody has or makes, of a type about which nobody is asked over a network.
#[must_use]
pub fn ask() -> Called {
    Called::make(|| {
        // SAFETY: strings that end in zero, and a number.
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
