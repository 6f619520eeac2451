//! Makes system calls fail as if they did not exist, like in a container that forbids them, or succeed without effect.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use nix::libc;

/// clone3(2) fails for a command and its descendants with the error of containers' filters.
pub fn without_clone3(command: &mut Command) {
    answer(command, libc::SYS_clone3, libc::ENOSYS);
}

/// seccomp(2) fails like in a kernel without filters. This is itself a filter, so prctl(2) could still install another
/// one.
pub fn without_seccomp(command: &mut Command) {
    answer(command, libc::SYS_seccomp, libc::ENOSYS);
}

/// A system call succeeds for a command and its descendants, and has no effect.
pub fn without_effect(command: &mut Command, call: libc::c_long) {
    answer(command, call, 0);
}

fn answer(command: &mut Command, call: libc::c_long, errno: i32) {
    let step = |code: u32, jump: [u8; 2], k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: jump[0],
        jf: jump[1],
        k,
    };
    let call = u32::try_from(call).unwrap_or_default();
    let refusal = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let mut filter = [
        // `struct seccomp_data` begins with the number of the call.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, [0, 0], 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, [0, 1], call),
        step(libc::BPF_RET | libc::BPF_K, [0, 0], refusal),
        step(libc::BPF_RET | libc::BPF_K, [0, 0], libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or_default(),
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the kernel reads the filter, which is valid, and copies it. It accepts a filter from root without
        // `no_new_privs`.
        let installed = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match installed {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, and neither allocates nor takes locks.
    unsafe { command.pre_exec(install) };
}
