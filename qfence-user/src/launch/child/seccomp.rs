//! Installs a system call filter.

use nix::{
    errno::Errno,
    libc::{self, sock_fprog},
};

use super::filter::Filter;

/// Applies the filter to this thread, and to the processes that it starts. Makes only one system call. Needs
/// `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// # Errors
/// ENOSYS or EINVAL if the kernel has no such filters, EACCES without the privilege.
pub(super) fn install(filter: &Filter) -> nix::Result<()> {
    let code = filter.code();
    let program = sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| Errno::E2BIG)?,
        filter: code.as_ptr().cast_mut(),
    };
    // Without this flag, kernels before Linux 5.16 treat a process with a filter as one that runs untrusted code, and
    // slow it down (`seccomp_assign_mode` in kernel/seccomp.c). SAFETY: the kernel reads as many instructions as there
    // are, and copies them.
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

/// The advice for an error of [`install`].
pub(super) fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSYS | Errno::EINVAL => {
            "this kernel has no system call filters, without which the fence does not cover 32-bit calls: \
             use one with CONFIG_SECCOMP_FILTER"
        }
        Errno::EACCES => {
            "with --allow-new-privs this needs CAP_SYS_ADMIN: remove the option, or give qfence the capability"
        }
        _ => "qfence itself may run under a filter that forbids this, for instance in a container",
    }
}
