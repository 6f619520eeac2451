//! Calls of 32 bits, made by a program of 64: what the kernel calls compat.

use std::{io, ptr};

use anyhow::{Result, bail};
use nix::{errno::Errno, libc};

/// In which way a system call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As every program of 64 bits does.
    Native,
    /// As one of 32 bits does.
    Compat,
    /// By socketcall(2), as an old one of 32 bits does.
    Socketcall,
    /// By an io_uring that a call of 32 bits set up.
    Ring,
    /// As every program of 64 bits does, with zeros for a value that are more than a page.
    Long,
}

impl Manner {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "native" => Self::Native,
            "compat" => Self::Compat,
            "socketcall" => Self::Socketcall,
            "ring" => Self::Ring,
            "long" => Self::Long,
            _ => bail!("{text} is no manner of call"),
        })
    }
}

/// What the calls are called by, of 64 bits and of 32 (asm/unistd_32.h).
#[derive(Clone, Copy)]
pub(crate) struct Number(pub(crate) libc::c_long, pub(crate) u32);

pub(crate) const ADD_KEY: Number = Number(libc::SYS_add_key, 286);
pub(crate) const REQUEST_KEY: Number = Number(libc::SYS_request_key, 287);
pub(crate) const KEYCTL: Number = Number(libc::SYS_keyctl, 288);
const SETSOCKOPT: Number = Number(libc::SYS_setsockopt, 366);
const SOCKETCALL: u32 = 102;
const IO_URING_SETUP: u32 = 425;

/// `SYS_SETSOCKOPT` of linux/net.h.
const SYS_SETSOCKOPT: u32 = 14;

/// Memory whose addresses fit into 32 bits.
pub(crate) struct Low {
    next: *mut u8,
}

impl Low {
    pub(crate) fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new mapping, which is nobody else's, and is left to the end of the process.
        let memory = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let next = memory.cast();
        Ok(Self { next })
    }

    /// A copy of these bytes. All of them together are less than a page.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> *mut u8 {
        let at = self.next;
        // SAFETY: the callers put a few dozen bytes into the page.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        self.next = at.wrapping_add(bytes.len().next_multiple_of(8));
        at
    }
}

fn low(pointer: *const u8) -> u32 {
    u32::try_from(pointer.addr()).unwrap_or_default()
}

/// Makes a call with arguments that mean the same to both conventions.
///
/// # Safety
/// They are what the call takes, and its pointers point into low memory.
pub(crate) unsafe fn call(
    manner: Manner,
    Number(native, compat): Number,
    arguments: [usize; 5],
) -> io::Result<i64> {
    if manner == Manner::Native {
        let [a, b, c, d, e] = arguments;
        // SAFETY: as the caller says.
        return Ok(Errno::result(unsafe {
            libc::syscall(native, a, b, c, d, e)
        })?);
    }
    // What is negative is cut short to what is negative in 32 bits.
    let arguments = arguments.map(|argument| {
        let [a, b, c, d, ..] = argument.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    });
    // SAFETY: as the caller says.
    unsafe { int80(compat, arguments) }
}

/// setsockopt(2).
pub(crate) fn set_option(
    manner: Manner,
    fd: i32,
    level: i32,
    name: i32,
    value: &[u8],
) -> io::Result<()> {
    let zeros = [0; 5000];
    let mut memory = Low::new()?;
    let value_at = match manner {
        Manner::Long => zeros.as_ptr().cast_mut(),
        _ => memory.put(value),
    };
    let numbers = [fd, level, name].map(i32::unsigned_abs);
    let [fd_, level_, name_] = numbers.map(|number| usize::try_from(number).unwrap_or_default());
    match manner {
        Manner::Native | Manner::Compat => {
            let arguments = [fd_, level_, name_, value_at.addr(), value.len()];
            // SAFETY: the kernel reads that many bytes.
            unsafe { call(manner, SETSOCKOPT, arguments) }.map(drop)
        }
        Manner::Long => {
            let arguments = [fd_, level_, name_, value_at.addr(), zeros.len()];
            // SAFETY: the kernel reads that many bytes.
            unsafe { call(Manner::Native, SETSOCKOPT, arguments) }.map(drop)
        }
        Manner::Socketcall => {
            let [fd, level, name] = numbers;
            let length = u32::try_from(value.len()).unwrap_or_default();
            let words = [fd, level, name, low(value_at), length];
            let at = memory.put(&words.map(u32::to_le_bytes).concat());
            // SAFETY: the kernel reads five words, and what the fourth points at.
            unsafe { int80(SOCKETCALL, [SYS_SETSOCKOPT, low(at), 0, 0, 0]) }.map(drop)
        }
        Manner::Ring => {
            let numbers = numbers.map(u32::to_le_bytes);
            by_ring(&mut memory, numbers, value_at, value.len())
        }
    }
}

/// `SOCKET_URING_OP_SETSOCKOPT`, by linux/io_uring.h.
fn by_ring(
    memory: &mut Low,
    [fd, level, name]: [[u8; 4]; 3],
    value: *const u8,
    length: usize,
) -> io::Result<()> {
    const URING_CMD: u8 = 46;
    const OP_SETSOCKOPT: u8 = 3;
    const ENTRIES: u32 = 4;
    const SQES: i64 = 0x1000_0000;
    const GETEVENTS: u32 = 1;
    let parameters_at = memory.put(&[0; 120]);
    // SAFETY: the kernel reads and writes 120 bytes, the parameters.
    let ring = unsafe { int80(IO_URING_SETUP, [ENTRIES, low(parameters_at), 0, 0, 0]) }?;
    let ring = i32::try_from(ring).map_err(io::Error::other)?;
    // SAFETY: the 120 bytes, which nobody writes any more.
    let parameters = unsafe { ptr::read(parameters_at.cast::<[u32; 30]>()) };
    let word = |index: usize| usize::try_from(parameters[index]).unwrap_or_default();
    // sq_off: head, tail, ring_mask, ring_entries, flags, dropped, array; cq_off: …, cqes at the sixth.
    let (sq_tail, sq_array, cqes) = (word(11), word(16), word(25));
    let map = |offset| {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, left to the end of the process. Both rings are less than a page.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                4096,
                protection,
                libc::MAP_SHARED,
                ring,
                offset,
            )
        };
        match memory {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            memory => Ok(memory.cast::<u8>()),
        }
    };
    let (rings, sqes) = (map(0)?, map(SQES)?);
    let mut entry = [0; 64];
    entry[0] = URING_CMD;
    entry[4..8].copy_from_slice(&fd);
    entry[8] = OP_SETSOCKOPT;
    entry[16..20].copy_from_slice(&level);
    entry[20..24].copy_from_slice(&name);
    entry[44..48].copy_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes());
    entry[48..56].copy_from_slice(&value.addr().to_le_bytes());
    // SAFETY: the first entry, which the kernel does not look at yet.
    unsafe { ptr::copy_nonoverlapping(entry.as_ptr(), sqes, entry.len()) };
    // SAFETY: the first slot of the queue.
    unsafe { rings.wrapping_add(sq_array).cast::<u32>().write_volatile(0) };
    // SAFETY: the queue's end.
    unsafe { rings.wrapping_add(sq_tail).cast::<u32>().write_volatile(1) };
    let enter = libc::SYS_io_uring_enter;
    let none = ptr::null::<u8>();
    // SAFETY: one entry, and no signal mask.
    Errno::result(unsafe { libc::syscall(enter, ring, 1, 1, GETEVENTS, none, 0) })?;
    // SAFETY: the result in the first completion, behind its name.
    match unsafe { rings.wrapping_add(cqes + 8).cast::<i32>().read_volatile() } {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}

/// A call of 32 bits.
///
/// # Safety
/// The arguments are what the call takes.
#[cfg(target_arch = "x86_64")]
unsafe fn int80(number: u32, [a, b, c, d, e]: [u32; 5]) -> io::Result<i64> {
    let result: i32;
    // SAFETY: as the caller says. The first argument goes into a register that is not to be named here; those that
    // the kernel may clear are given up.
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
