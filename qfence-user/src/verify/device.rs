//! Devices that give a process a network without internet sockets. The hidden verb `open` opens them, inside and
//! outside of the fence.

use std::{fs::File, io, os::unix::fs::FileTypeExt, path::Path};

use nix::errno::Errno;
use qfence_common::device::FORBIDDEN;

use super::{
    calls::Called,
    judge::{End, Trial},
};

/// The paths of the devices that a fence refuses to open.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FORBIDDEN.iter().map(|device| device.path)
}

/// Opens a device for reading and writing, and closes it.
#[must_use]
pub fn open(path: &Path) -> Called {
    Called::make(|| {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| errno_of(&error))?;
        let is_device = file
            .metadata()
            .is_ok_and(|data| data.file_type().is_char_device());
        if is_device {
            Ok(())
        } else {
            Err(Errno::ENODEV)
        }
    })
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// Converts the result of opening a device to a trial, with the refusals that were recorded meanwhile.
#[must_use]
pub fn trial(opened: Called, layers: Vec<&'static str>) -> Trial {
    let end = match opened.error() {
        None => End::Reached,
        // The device does not exist or has no driver.
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => End::Unsupported,
        Some(Errno::EACCES) => End::Unprivileged,
        Some(_) => End::Nothing,
    };
    opened.ended(end, layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(path: &str) -> End {
        trial(open(Path::new(path)), Vec::new()).end
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
            trial(Called { errno, ms: 0.0 }, Vec::new()).end
        };
        assert_eq!(with(Errno::EPERM), End::Nothing);
        assert_eq!(with(Errno::EACCES), End::Unprivileged);
    }
}
