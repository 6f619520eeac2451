//! 32-bit system calls of a 64-bit process. For the kernel they are compat calls, and it runs no program of a cgroup
//! for the options that they set (`do_sock_setsockopt` in net/socket.c).

mod ring;

use std::{io, os::fd::AsRawFd as _, ptr, str::FromStr};

use nix::{errno::Errno, libc};
#[cfg(target_arch = "x86_64")]
use nix::{
    sys::{
        resource::{Resource, setrlimit},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use socket2::Socket;
use thiserror::Error;

/// The convention of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A native 64-bit call.
    Native,
    /// A 32-bit call.
    Compat,
    /// A 32-bit call of socketcall(2), as in old programs.
    Socketcall,
    /// An operation of an io_uring that a 32-bit call set up.
    Ring,
    /// A native 64-bit call whose value is more than a page of zeros.
    Long,
}

/// The error for a text that is not the name of a [`Manner`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no manner of a call")]
pub struct NoManner(String);

impl FromStr for Manner {
    type Err = NoManner;

    fn from_str(text: &str) -> Result<Self, NoManner> {
        Ok(match text {
            "native" => Self::Native,
            "compat" => Self::Compat,
            "socketcall" => Self::Socketcall,
            "ring" => Self::Ring,
            "long" => Self::Long,
            _ => return Err(NoManner(text.to_owned())),
        })
    }
}

/// The numbers of a call: of the 64-bit and of the 32-bit convention (asm/unistd_32.h).
#[derive(Clone, Copy, Debug)]
pub struct Number(libc::c_long, u32);

/// add_key(2).
pub const ADD_KEY: Number = Number(libc::SYS_add_key, 286);
/// request_key(2).
pub const REQUEST_KEY: Number = Number(libc::SYS_request_key, 287);
/// keyctl(2).
pub const KEYCTL: Number = Number(libc::SYS_keyctl, 288);
#[cfg(target_arch = "x86_64")]
const GETPID: u32 = 20;
const SETSOCKOPT: Number = Number(libc::SYS_setsockopt, 366);
const SOCKETCALL: u32 = 102;

/// `SYS_SETSOCKOPT` of linux/net.h.
const SYS_SETSOCKOPT: u32 = 14;

/// A page of memory whose addresses fit into 32 bits. It is never freed.
#[derive(Debug)]
pub struct Low {
    next: *mut u8,
    room: usize,
}

/// The flag of mmap() for addresses below 4 GB. Other processors have no such flag, and no 32-bit calls here.
#[cfg(target_arch = "x86_64")]
pub const BELOW_4_GB: i32 = libc::MAP_32BIT;
/// The flag of mmap() for addresses below 4 GB. Other processors have no such flag, and no 32-bit calls here.
#[cfg(not(target_arch = "x86_64"))]
pub const BELOW_4_GB: i32 = 0;

/// The size of a page, in bytes.
const PAGE: usize = 4096;

/// Sets `SO_BROADCAST` by a 32-bit call.
///
/// # Errors
/// ENOSYS if this process cannot make such calls; otherwise the errors of setsockopt().
pub(super) fn set_broadcast(socket: &Socket) -> io::Result<()> {
    if !is_there()? {
        return Err(Errno::ENOSYS.into());
    }
    let on = 1_i32.to_ne_bytes();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_BROADCAST);
    set_option(Manner::Compat, socket.as_raw_fd(), level, name, &on)
}

impl Low {
    /// Maps the page.
    ///
    /// # Errors
    /// If there is no memory below 4 GB, or the kernel cannot map it there.
    pub fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | BELOW_4_GB;
        // SAFETY: this is a new mapping without other users, which exists until the end of the process.
        let memory = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            next: memory.cast(),
            room: PAGE,
        })
    }

    /// Copies these bytes into the page.
    ///
    /// # Errors
    /// ENOMEM if the page is full.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<*mut u8> {
        let at = self.next;
        let length = bytes.len().next_multiple_of(8);
        self.room = self.room.checked_sub(length).ok_or(Errno::ENOMEM)?;
        // SAFETY: the page has room for the bytes, which was just checked.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        self.next = at.wrapping_add(length);
        Ok(at)
    }
}

fn low(pointer: *const u8) -> u32 {
    u32::try_from(pointer.addr()).unwrap_or_default()
}

/// Makes a call whose arguments have the same meaning in both conventions, and returns its result.
///
/// # Errors
/// The errors of the call.
///
/// # Safety
/// The arguments must be valid for the call, and its pointers must point into low memory.
pub unsafe fn call(
    manner: Manner,
    Number(native, compat): Number,
    arguments: [usize; 5],
) -> io::Result<i64> {
    if manner == Manner::Native {
        let [a, b, c, d, e] = arguments;
        // SAFETY: guaranteed by the caller.
        return Ok(Errno::result(unsafe {
            libc::syscall(native, a, b, c, d, e)
        })?);
    }
    // A negative number stays negative when it is truncated to 32 bits.
    let arguments = arguments.map(|argument| {
        let [a, b, c, d, ..] = argument.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    });
    // SAFETY: guaranteed by the caller.
    unsafe { int80(compat, arguments) }
}

/// Sets an option of a socket by a 32-bit call, with a value that the kernel copies from this address, below 4 GB, while it
/// has locked the socket.
///
/// # Errors
/// The errors of setsockopt().
///
/// # Safety
/// The address must be that of a mapping with so many readable bytes.
pub unsafe fn set_option_from(
    fd: i32,
    level: i32,
    name: i32,
    at: *const u8,
    length: usize,
) -> io::Result<()> {
    let numbers = [fd, level, name].map(i32::unsigned_abs);
    let [fd, level, name] = numbers.map(|number| usize::try_from(number).unwrap_or_default());
    let arguments = [fd, level, name, at.addr(), length];
    // SAFETY: guaranteed by the caller.
    unsafe { call(Manner::Compat, SETSOCKOPT, arguments) }.map(drop)
}

/// Sets an option of a socket.
///
/// # Errors
/// The errors of setsockopt(), or of setting up the ring.
pub fn set_option(manner: Manner, fd: i32, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let zeros = [0; 5000];
    let mut memory = Low::new()?;
    let value_at = match manner {
        Manner::Long => zeros.as_ptr().cast_mut(),
        _ => memory.put(value)?,
    };
    let numbers = [fd, level, name].map(i32::unsigned_abs);
    let [fd_, level_, name_] = numbers.map(|number| usize::try_from(number).unwrap_or_default());
    match manner {
        Manner::Native | Manner::Compat => {
            let arguments = [fd_, level_, name_, value_at.addr(), value.len()];
            // SAFETY: the kernel reads `value.len()` bytes, which were copied to `value_at`.
            unsafe { call(manner, SETSOCKOPT, arguments) }.map(drop)
        }
        Manner::Long => {
            let arguments = [fd_, level_, name_, value_at.addr(), zeros.len()];
            // SAFETY: the kernel reads `zeros.len()` bytes of `zeros`.
            unsafe { call(Manner::Native, SETSOCKOPT, arguments) }.map(drop)
        }
        Manner::Socketcall => {
            let [fd, level, name] = numbers;
            let length = u32::try_from(value.len()).unwrap_or_default();
            let words = [fd, level, name, low(value_at), length];
            let at = memory.put(&words.map(u32::to_le_bytes).concat())?;
            // SAFETY: the kernel reads five words, and the value that the fourth points to.
            unsafe { int80(SOCKETCALL, [SYS_SETSOCKOPT, low(at), 0, 0, 0]) }.map(drop)
        }
        Manner::Ring => {
            let numbers = numbers.map(u32::to_le_bytes);
            ring::set_option(&mut memory, numbers, value_at, value.len())
        }
    }
}

/// Whether the kernel supports 32-bit calls. If it does not, the processor ends the calling process, so a child makes
/// one.
#[cfg(target_arch = "x86_64")]
fn is_there() -> io::Result<bool> {
    // SAFETY: the child uses system calls only, and ends.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            // SAFETY: the call takes no arguments.
            let is_there = unsafe { int80(GETPID, [0; 5]) }.is_ok();
            // SAFETY: it ends the process without running other code.
            unsafe { libc::_exit(i32::from(!is_there)) }
        }
        ForkResult::Parent { child } => {
            Ok(matches!(waitpid(child, None)?, WaitStatus::Exited(_, 0)))
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn is_there() -> io::Result<bool> {
    // On ARM only 32-bit programs can make 32-bit calls.
    Ok(false)
}

/// Makes a 32-bit call.
///
/// # Safety
/// The arguments must be valid for the call.
#[cfg(target_arch = "x86_64")]
unsafe fn int80(number: u32, [a, b, c, d, e]: [u32; 5]) -> io::Result<i64> {
    let result: i32;
    // SAFETY: the caller guarantees the arguments. The first one belongs in a register that cannot be named as an
    // operand here. The registers that the kernel may change are marked as clobbered.
    unsafe {
        std::arch::asm!(
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
    match result {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        result => Ok(result.into()),
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn int80(_: u32, _: [u32; 5]) -> io::Result<i64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
