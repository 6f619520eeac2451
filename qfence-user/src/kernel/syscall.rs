//! Calls bpf(2) for commands that aya does not offer.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use nix::libc;

/// The argument of a command of bpf(2): a prefix of the kernel's `union bpf_attr`. The kernel takes the rest as zero.
///
/// # Safety
/// The type is `repr(C)`, has the kernel's layout for `COMMAND`, and each address in it is valid for the kernel's use
/// of it.
pub(super) unsafe trait Attributes {
    /// The command, of `enum bpf_cmd` in linux/bpf.h.
    const COMMAND: c_long;
}

/// Makes the call; returns the kernel's result.
///
/// # Errors
/// Errors of bpf(2).
pub(super) fn bpf<A: Attributes>(attributes: &mut A) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes no more than the given size; the implementer of the trait promises the
    // rest.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            A::COMMAND,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Makes a call that returns a descriptor.
///
/// # Errors
/// As [`bpf`].
pub(super) fn bpf_fd<A: Attributes>(attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the number that the kernel's structs have.
pub(super) fn number(fd: &impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
}
