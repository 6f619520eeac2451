//! Options that a call of 32 bits sets. The kernel calls it compat, and asks no program on a cgroup about it
//! (`do_sock_setsockopt` in net/socket.c).

use std::io;
#[cfg(target_arch = "x86_64")]
use std::{arch::asm, os::fd::AsRawFd, ptr};

use nix::errno::Errno;
#[cfg(target_arch = "x86_64")]
use nix::{
    libc,
    sys::{
        resource::{Resource, setrlimit},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use socket2::Socket;

/// Numbers of asm/unistd_32.h.
#[cfg(target_arch = "x86_64")]
const GETPID: u32 = 20;
#[cfg(target_arch = "x86_64")]
const SETSOCKOPT: u32 = 366;

/// Sets `SO_BROADCAST`.
///
/// # Errors
/// ENOSYS if this process cannot make such calls; otherwise what setsockopt() fails with.
#[cfg(target_arch = "x86_64")]
pub(super) fn set_broadcast(socket: &Socket) -> io::Result<()> {
    if !is_there()? {
        return Err(Errno::ENOSYS.into());
    }
    let length = size_of::<i32>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping, which is nobody else's. Its address fits into 32 bits.
    let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the beginning of the mapping, which is of whole pages.
    unsafe { memory.cast::<i32>().write(1) };
    let word = |number: usize| u32::try_from(number).map_err(io::Error::other);
    let [fd, level, name] =
        [socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BROADCAST].map(i32::unsigned_abs);
    let arguments = [fd, level, name, word(memory.addr())?, word(length)?];
    // SAFETY: the kernel reads an integer.
    let result = unsafe { int80(SETSOCKOPT, arguments) };
    // SAFETY: the mapping, which is of no more use.
    unsafe { libc::munmap(memory, length) };
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    }
}

/// The same, for processes that can make no calls but their own: to ARM's of 32 bits only programs of 32 bits come.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn set_broadcast(_: &Socket) -> io::Result<()> {
    Err(Errno::ENOSYS.into())
}

/// Whether the kernel takes such calls. Where it does not the processor ends whoever makes one, so a child does.
#[cfg(target_arch = "x86_64")]
fn is_there() -> io::Result<bool> {
    // SAFETY: the child makes system calls alone, and ends.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            // SAFETY: it takes no arguments.
            let is_there = unsafe { int80(GETPID, [0; 5]) } > 0;
            // SAFETY: it ends the process, and runs nothing before.
            unsafe { libc::_exit(i32::from(!is_there)) }
        }
        ForkResult::Parent { child } => {
            Ok(matches!(waitpid(child, None)?, WaitStatus::Exited(_, 0)))
        }
    }
}

/// A call of 32 bits; what it returns, an error as a negative number.
///
/// # Safety
/// The arguments are what the call takes.
#[cfg(target_arch = "x86_64")]
unsafe fn int80(number: u32, [a, b, c, d, e]: [u32; 5]) -> i32 {
    let result: i32;
    // SAFETY: as the caller says. rbx, which the first argument goes into, cannot be named; it is put back. Old
    // kernels clear the last four.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(a) => _,
            inlateout("eax") number => result,
            in("ecx") b,
            in("edx") c,
            in("esi") d,
            in("edi") e,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    result
}
