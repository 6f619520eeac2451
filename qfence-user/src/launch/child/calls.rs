//! The numbers of the system calls that the filter names, in each calling convention of a process.

/// A calling convention: one numbering of system calls. A process can use several: a 64-bit program on x86 can also
/// make 32-bit calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Convention {
    /// `AUDIT_ARCH_…` of linux/audit.h.
    pub(super) arch: u32,
    /// Whether these calls are compat calls for the kernel (`in_compat_syscall`).
    pub(super) is_compat: bool,
    /// The first number of compat calls with the same `AUDIT_ARCH_…`; the last is below twice this number: x32
    /// (`__X32_SYSCALL_BIT` of asm/unistd.h).
    pub(super) x32: Option<u32>,
    /// setsockopt(2).
    pub(super) setsockopt: u32,
    /// socketcall(2), which includes setsockopt(2) and all other socket calls. Its arguments are in memory.
    pub(super) socketcall: Option<u32>,
    /// io_uring_setup(2).
    pub(super) io_uring_setup: u32,
    /// request_key(2).
    pub(super) request_key: u32,
    /// ioctl(2). x32 has another number for it, [`IOCTL_OF_X32`].
    pub(super) ioctl: u32,
    /// open_by_handle_at(2).
    pub(super) open_by_handle_at: u32,
}

#[cfg(any(test, target_arch = "x86_64"))]
const X86_64: Convention = Convention {
    arch: 0xc000_003e,
    is_compat: false,
    x32: Some(0x4000_0000),
    setsockopt: 54,
    socketcall: None,
    io_uring_setup: 425,
    request_key: 249,
    ioctl: 16,
    open_by_handle_at: 304,
};

#[cfg(any(test, target_arch = "x86_64"))]
const I386: Convention = Convention {
    arch: 0x4000_0003,
    is_compat: true,
    x32: None,
    setsockopt: 366,
    socketcall: Some(102),
    io_uring_setup: 425,
    request_key: 287,
    ioctl: 54,
    open_by_handle_at: 342,
};

#[cfg(any(test, target_arch = "aarch64"))]
const AARCH64: Convention = Convention {
    arch: 0xc000_00b7,
    is_compat: false,
    x32: None,
    setsockopt: 208,
    socketcall: None,
    io_uring_setup: 425,
    request_key: 218,
    ioctl: 29,
    open_by_handle_at: 265,
};

#[cfg(any(test, target_arch = "aarch64"))]
/// The EABI, the only 32-bit convention of a 64-bit ARM kernel.
const ARM: Convention = Convention {
    arch: 0x4000_0028,
    is_compat: true,
    x32: None,
    setsockopt: 294,
    socketcall: None,
    io_uring_setup: 425,
    request_key: 310,
    ioctl: 54,
    open_by_handle_at: 371,
};

/// ioctl(2) of x32 (arch/x86/entry/syscalls/syscall_64.tbl).
pub(super) const IOCTL_OF_X32: u32 = 514;

#[cfg(any(test, target_arch = "x86_64"))]
/// The conventions of x86.
pub(super) const ON_X86_64: &[Convention] = &[X86_64, I386];

#[cfg(any(test, target_arch = "aarch64"))]
/// The conventions of ARM.
pub(super) const ON_AARCH64: &[Convention] = &[AARCH64, ARM];

/// The conventions of this machine, its native one first.
#[cfg(target_arch = "x86_64")]
pub(super) const HERE: &[Convention] = ON_X86_64;
/// The conventions of this machine, its native one first.
#[cfg(target_arch = "aarch64")]
pub(super) const HERE: &[Convention] = ON_AARCH64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter of system calls needs the numbers of this architecture: add them here");

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn those_of_this_machine_are_the_c_librarys() {
        let own = HERE[0];
        for (ours, number) in [
            (own.setsockopt, libc::SYS_setsockopt),
            (own.io_uring_setup, libc::SYS_io_uring_setup),
            (own.request_key, libc::SYS_request_key),
            (own.ioctl, libc::SYS_ioctl),
            (own.open_by_handle_at, libc::SYS_open_by_handle_at),
        ] {
            assert_eq!(i64::from(ours), number);
        }
    }
}
