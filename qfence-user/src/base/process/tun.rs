//! The tap device that a descriptor of another process is attached to. The helper process looks at it (`helper.rs`): while it
//! does, the process can replace the descriptor's file by one of a file system in user space (FUSE), which can keep who calls
//! ioctl(2) or close(2) for ever.

use std::{
    ffi::CStr,
    fs::File,
    io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use anyhow::{Context as _, Result, anyhow};
use nix::{errno::Errno, libc, unistd::Pid};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};

/// A tap device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TapDevice {
    /// Its name.
    pub(crate) name: String,
    /// Its network namespace, by the inode.
    pub(crate) netns: u64,
}

/// The device that a descriptor of a process is attached to; `None` if the process or the descriptor is gone, or it is
/// attached to no device.
///
/// # Errors
/// If the descriptor cannot be taken from the process.
fn device(pid: Pid, descriptor: i32) -> Result<Option<TapDevice>> {
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
        Ok(device) => Ok(Some(device)),
        // No device is attached, or the descriptor is another file's by now.
        Err(error) if is_no_device(&error) => Ok(None),
        Err(error) => Err(error).with_context(context),
    }
}

/// The answer of the helper.
pub(super) fn answer(pid: i32, descriptor: i32) -> Vec<u8> {
    let found = device(Pid::from_raw(pid), descriptor).map_err(|error| format!("{error:#}"));
    serde_json::to_vec(&found).unwrap_or_default()
}

/// Decodes it.
///
/// # Errors
/// That of the helper.
pub(crate) fn decode(answer: &[u8]) -> Result<Option<TapDevice>> {
    let found: Result<Option<TapDevice>, String> =
        serde_json::from_slice(answer).context("the helper process gave an invalid answer")?;
    found.map_err(|error| anyhow!(error))
}

fn is_no_device(error: &io::Error) -> bool {
    let errors = [libc::EBADFD, libc::ENOTTY, libc::EINVAL];
    error
        .raw_os_error()
        .is_some_and(|error| errors.contains(&error))
}

fn of_device(tap: &OwnedFd) -> io::Result<TapDevice> {
    // SAFETY: the call has no argument. It makes a descriptor of the device's network namespace.
    let namespace = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETDEVNETNS) };
    let namespace = Errno::result(namespace)?;
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    let namespace = File::from(unsafe { OwnedFd::from_raw_fd(namespace) });
    // SAFETY: a struct of integers and addresses, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes into the struct, which lives as long as the call.
    let named = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    Errno::result(named)?;
    // SAFETY: the kernel ends a name by a zero byte within its 16 bytes, and the struct lives as long as the text is read.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    Ok(TapDevice {
        name: name.to_string_lossy().into_owned(),
        netns: namespace.metadata()?.ino(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_device_is_none() {
        let file = File::open("/dev/null").unwrap();
        let own = Pid::this().as_raw();
        let asked = |pid, descriptor| decode(&answer(pid, descriptor)).unwrap();
        assert_eq!(asked(own, file.as_raw_fd()), None);
        assert_eq!(asked(own, i32::MAX), None);
        assert_eq!(asked(i32::MAX, 0), None);
    }

    #[test]
    fn an_answer_is_decoded() {
        let tap = TapDevice {
            name: "tap0".to_owned(),
            netns: 4_026_531_840,
        };
        let answer = br#"{"Ok":{"name":"tap0","netns":4026531840}}"#;
        assert_eq!(decode(answer).unwrap(), Some(tap));
        assert_eq!(decode(br#"{"Ok":null}"#).unwrap(), None);
        let error = decode(br#"{"Err":"cannot"}"#).unwrap_err();
        assert_eq!(error.to_string(), "cannot");
        assert!(decode(b"").is_err());
    }
}
