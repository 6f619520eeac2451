//! Devices by which a program could have a network beside its sockets. Opened by the hidden verb
//! `open`, in the fence and out of it.

use std::{fs::File, io, os::unix::fs::FileTypeExt, path::Path, time::Instant};

use nix::errno::Errno;
use qfence_common::device::FORBIDDEN;
use serde::{Deserialize, Serialize};

use super::judge::{End, Trial};

/// What came of opening a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// The error, as a number.
    pub errno: Option<i32>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// The devices that are not to be opened in a fence, by path.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FORBIDDEN.iter().map(|device| device.path)
}

/// Opens a device to read and write, and closes it.
#[must_use]
pub fn open(path: &Path) -> Opened {
    let start = Instant::now();
    let opened = File::options().read(true).write(true).open(path);
    let is_device = |file: &File| {
        file.metadata()
            .is_ok_and(|data| data.file_type().is_char_device())
    };
    let errno = match opened {
        Ok(file) if is_device(&file) => None,
        Ok(_) => Some(Errno::ENODEV as i32),
        Err(error) => Some(errno_of(&error)),
    };
    Opened {
        errno,
        ms: start.elapsed().as_secs_f64() * 1000.0,
    }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::EINVAL as i32)
}

impl Opened {
    /// It as a trial, with the refusals that were recorded meanwhile.
    #[must_use]
    pub fn trial(self, layers: Vec<&'static str>) -> Trial {
        let errno = self.errno.map(Errno::from_raw);
        let end = match errno {
            None => End::Reached,
            // Not there; without a driver; not for this user.
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => End::Unsupported,
            Some(Errno::EACCES) => End::Unprivileged,
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

    fn end(path: &str) -> End {
        open(Path::new(path)).trial(Vec::new()).end
    }

    #[test]
    fn what_is_no_device_or_not_there_cannot_be_tried() {
        assert_eq!(end("/dev/null"), End::Reached);
        assert_eq!(end("/dev/no-such-device"), End::Unsupported);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(end(file.path().to_str().unwrap()), End::Unsupported);
    }

    #[test]
    fn a_refusal_of_the_fence_is_told_from_that_of_the_files_mode() {
        let with = |errno: Errno| {
            let errno = Some(errno as i32);
            Opened { errno, ms: 0.0 }.trial(Vec::new()).end
        };
        assert_eq!(with(Errno::EPERM), End::Nothing);
        assert_eq!(with(Errno::EACCES), End::Unprivileged);
    }
}
