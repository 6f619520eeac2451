//! The network namespace of a tap device that another process has open. The helper process looks at it (`helper.rs`): while it does,
//! the process can replace the descriptor's file by one of a file system in user space (FUSE), which can keep who calls
//! ioctl(2) or close(2) for ever.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use anyhow::{Context as _, Result, bail};
use nix::{errno::Errno, libc, unistd::Pid};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The namespace of the device that a descriptor of a process is attached to, by its inode; `None` if the process or the
/// descriptor is gone, or it is attached to no device.
///
/// # Errors
/// If the descriptor cannot be taken from the process.
fn namespace(pid: Pid, descriptor: i32) -> Result<Option<u64>> {
    let context = || format!("cannot look at the tap device of the process {pid}");
    let Some(id) = rustix::process::Pid::from_raw(pid.as_raw()) else {
        return Ok(None);
    };
    let process = match pidfd_open(id, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        process => process.with_context(context)?,
    };
    let taken = match pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => return Ok(None),
        taken => taken.with_context(context)?,
    };
    match of_device(&taken) {
        Ok(namespace) => Ok(Some(
            File::from(namespace)
                .metadata()
                .with_context(context)?
                .ino(),
        )),
        // No device is attached, or the descriptor is another file's by now.
        Err(error) if is_no_device(&error) => Ok(None),
        Err(error) => Err(error).with_context(context),
    }
}

/// The answer of the helper: an inode, nothing, or an error.
pub(super) fn answer(pid: i32, descriptor: i32) -> Vec<u8> {
    match namespace(Pid::from_raw(pid), descriptor) {
        Ok(None) => Vec::new(),
        Ok(Some(inode)) => inode.to_string().into_bytes(),
        Err(error) => format!("{error:#}").into_bytes(),
    }
}

/// Decodes it.
///
/// # Errors
/// That of the helper.
pub(crate) fn decode(answer: &[u8]) -> Result<Option<u64>> {
    let text = String::from_utf8_lossy(answer);
    match text.parse() {
        Ok(inode) => Ok(Some(inode)),
        Err(_) if text.is_empty() => Ok(None),
        Err(_) => bail!("{text}"),
    }
}

fn is_no_device(error: &io::Error) -> bool {
    let errors = [libc::EBADFD, libc::ENOTTY, libc::EINVAL];
    error
        .raw_os_error()
        .is_some_and(|error| errors.contains(&error))
}

fn of_device(tap: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: the call has no argument. It makes a descriptor of the device's network namespace.
    let namespace = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETDEVNETNS) };
    let namespace = Errno::result(namespace)?;
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_device_has_no_namespace() {
        let file = File::open("/dev/null").unwrap();
        let own = Pid::this().as_raw();
        let asked = |pid, descriptor| decode(&answer(pid, descriptor)).unwrap();
        assert_eq!(asked(own, file.as_raw_fd()), None);
        assert_eq!(asked(own, i32::MAX), None);
        assert_eq!(asked(i32::MAX, 0), None);
    }

    #[test]
    fn an_answer_is_decoded() {
        assert_eq!(decode(b"").unwrap(), None);
        assert_eq!(decode(b"4026531840").unwrap(), Some(4_026_531_840));
        assert_eq!(decode(b"cannot").unwrap_err().to_string(), "cannot");
    }
}
