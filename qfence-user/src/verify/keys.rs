//! A key that the kernel has somebody fetch: a program of root's, outside of the fence. Asked for by the hidden verb
//! `request-key`, in the fence and out of it.

use std::{ffi::c_long, time::Instant};

use nix::{errno::Errno, libc};
use serde::{Deserialize, Serialize};

use super::{
    actors::Place,
    judge::{End, Trial},
};

/// How that is called in the report.
pub const ATTEMPT: &str = "request_key, calling out";

/// `KEY_SPEC_PROCESS_KEYRING` of linux/keyctl.h: what comes of it ends with the process.
const PROCESS_KEYRING: c_long = -2;

/// What came of asking for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The error, as a number.
    pub errno: Option<i32>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// Asks for a key that nobody has or makes, of a type about which nobody is asked over a network.
#[must_use]
pub fn ask() -> Asked {
    let start = Instant::now();
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
    Asked {
        errno: Errno::result(key).err().map(|errno| errno as i32),
        ms: start.elapsed().as_secs_f64() * 1000.0,
    }
}

impl Asked {
    /// It as a trial, with the refusals that were recorded meanwhile.
    #[must_use]
    pub fn trial(self, place: Place, layers: Vec<&'static str>) -> Trial {
        let errno = self.errno.map(Errno::from_raw);
        let end = match errno {
            // The kernel has called out, and that is what came back; or that there is no program to call.
            None | Some(Errno::ENOKEY | Errno::EKEYREJECTED | Errno::ENOENT) => End::Reached,
            Some(Errno::ENOSYS) => End::Unsupported,
            // Something refuses it to all here, as containers do.
            Some(Errno::EPERM | Errno::EACCES) if place == Place::Outside => End::Unprivileged,
            Some(_) => End::Nothing,
        };
        Trial {
            end,
            errno: errno.map(|errno| format!("{errno:?}")),
            ms: self.ms,
            layers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(errno: Option<Errno>, place: Place) -> End {
        let errno = errno.map(|errno| errno as i32);
        Asked { errno, ms: 0.0 }.trial(place, Vec::new()).end
    }

    #[test]
    fn what_was_called_out_for_is_told_from_what_was_refused() {
        for place in [Place::Outside, Place::Inside, Place::Filtered] {
            assert_eq!(end(None, place), End::Reached);
            assert_eq!(end(Some(Errno::ENOKEY), place), End::Reached);
            assert_eq!(end(Some(Errno::ENOENT), place), End::Reached);
            assert_eq!(end(Some(Errno::ENOSYS), place), End::Unsupported);
            assert_eq!(end(Some(Errno::EDQUOT), place), End::Nothing);
        }
        assert_eq!(end(Some(Errno::EPERM), Place::Inside), End::Nothing);
        assert_eq!(end(Some(Errno::EPERM), Place::Filtered), End::Nothing);
        assert_eq!(end(Some(Errno::EPERM), Place::Outside), End::Unprivileged);
    }
}
