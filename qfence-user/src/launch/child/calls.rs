//! The system calls that a filter names, by the numbers of each convention in which a process can make them.

/// One way to number system calls. A process may change from one to the next at every call: a program of 64 bits
/// on x86 can make calls of 32 bits as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Convention {
    /// `AUDIT_ARCH_…` of linux/audit.h.
    pub(super) arch: u32,
    /// Whether its calls are what the kernel calls compat (`in_compat_syscall`).
    pub(super) is_compat: bool,
    /// Numbers from here on, below twice that, are compat calls in the same architecture's name: x32
    /// (`__X32_SYSCALL_BIT` of asm/unistd.h).
    pub(super) x32: Option<u32>,
    /// setsockopt(2).
    pub(super) setsockopt: u32,
    /// socketcall(2), which is setsockopt(2) and all the others, with its arguments in memory.
    pub(super) socketcall: Option<u32>,
    /// io_uring_setup(2).
    pub(super) io_uring_setup: u32,
    /// add_key(2).
    pub(super) add_key: u32,
    /// request_key(2).
    pub(super) request_key: u32,
    /// keyctl(2).
    pub(super) keyctl: u32,
    /// ioctl(2). Of x32 it is another number, see there.
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
    add_key: 248,
    request_key: 249,
    keyctl: 250,
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
    add_key: 286,
    request_key: 287,
    keyctl: 288,
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
    add_key: 217,
    request_key: 218,
    keyctl: 219,
    ioctl: 29,
    open_by_handle_at: 265,
};

#[cfg(any(test, target_arch = "aarch64"))]
/// The EABI, which is all of ARM's that a kernel of 64 bits has.
const ARM: Convention = Convention {
    arch: 0x4000_0028,
    is_compat: true,
    x32: None,
    setsockopt: 294,
    socketcall: None,
    io_uring_setup: 425,
    add_key: 309,
    request_key: 310,
    keyctl: 311,
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

/// Those of this machine, its own first.
#[cfg(target_arch = "x86_64")]
pub(super) const HERE: &[Convention] = ON_X86_64;
/// Those of this machine, its own first.
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
            (own.add_key, libc::SYS_add_key),
            (own.request_key, libc::SYS_request_key),
            (own.keyctl, libc::SYS_keyctl),
            (own.ioctl, libc::SYS_ioctl),
            (own.open_by_handle_at, libc::SYS_open_by_handle_at),
        ] {
            assert_eq!(i64::from(ours), number);
        }
    }
}
