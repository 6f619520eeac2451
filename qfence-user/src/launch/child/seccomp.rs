//! Installs a filter of system calls.

use nix::{
    errno::Errno,
    libc::{self, sock_fprog},
};

use super::filter::Filter;

/// Has this thread, and all that it starts, make its system calls through the filter from now on. It makes a system
/// call and nothing else. It takes `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// # Errors
/// ENOSYS or EINVAL where the kernel has no such filters, EACCES for want of privilege.
pub(super) fn install(filter: &Filter) -> nix::Result<()> {
    let code = filter.code();
    let program = sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| Errno::E2BIG)?,
        filter: code.as_ptr().cast_mut(),
    };
    // Without the flag the kernel, before Linux 5.16, takes whoever has a filter for one that runs what it does not
    // trust, and has it pay for that (`seccomp_assign_mode` in kernel/seccomp.c).
    // SAFETY: the kernel reads as many instructions as there are, and copies them.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    Errno::result(installed).map(drop)
}

/// What to do about it where that fails.
pub(super) fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSYS | Errno::EINVAL => {
            "this kernel has no filters of system calls, without which the fence would not hold calls of 32 bits: \
             use one with CONFIG_SECCOMP_FILTER"
        }
        Errno::EACCES => {
            "with --allow-new-privs that takes CAP_SYS_ADMIN: leave the option out, or give qfence the capability"
        }
        _ => {
            "what forbids it may be a filter that qfence itself was started with, as containers have"
        }
    }
}
