//! bpf(2), for the few calls that aya does not offer.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use nix::libc;

/// What a command of bpf(2) takes: the beginning of the kernel's `union bpf_attr`, whose rest the
/// kernel takes as zero.
///
/// # Safety
/// The type is `repr(C)`, has the layout that the kernel has for `COMMAND`, and every address in it is
/// good for what the kernel does with it.
pub(super) unsafe trait Attributes {
    /// The command, of `enum bpf_cmd` in linux/bpf.h.
    const COMMAND: c_long;
}

/// Makes the call; returns what the kernel does.
///
/// # Errors
/// What bpf(2) fails with.
pub(super) fn bpf<A: Attributes>(attributes: &mut A) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes what it is told the size of; the rest is promised by
    // whoever implements the trait.
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

/// The same, for commands that return a descriptor.
///
/// # Errors
/// As above.
pub(super) fn bpf_fd<A: Attributes>(attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the kernel's structs have it.
pub(super) fn number(fd: &impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
}
