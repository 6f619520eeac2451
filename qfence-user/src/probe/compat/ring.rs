//! Sets a socket option through an io_uring that a 32-bit call has set up. The crate `io-uring` makes only 64-bit
//! calls.

use std::{io, ptr};

use nix::{errno::Errno, libc};

use super::{Low, int80, low};

const IO_URING_SETUP: u32 = 425;

/// Sets an option by `SOCKET_URING_OP_SETSOCKOPT` (linux/io_uring.h).
pub(super) fn set_option(
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
    let parameters_at = memory.put(&[0; 120])?;
    // SAFETY: the kernel reads and writes the 120 bytes of parameters.
    let ring = unsafe { int80(IO_URING_SETUP, [ENTRIES, low(parameters_at), 0, 0, 0]) }?;
    let ring = i32::try_from(ring).map_err(io::Error::other)?;
    // SAFETY: the 120 bytes are initialised and no longer written.
    let parameters = unsafe { ptr::read(parameters_at.cast::<[u32; 30]>()) };
    let word = |index: usize| usize::try_from(parameters[index]).unwrap_or_default();
    // sq_off: head, tail, ring_mask, ring_entries, flags, dropped, array; cq_off: …, cqes is the sixth.
    let (sq_tail, sq_array, cqes) = (word(11), word(16), word(25));
    let map = |offset| {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: this is a new mapping, which exists until the end of the process. Both rings are smaller than a page.
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
    // SAFETY: this is the first entry, which the kernel does not read yet.
    unsafe { ptr::copy_nonoverlapping(entry.as_ptr(), sqes, entry.len()) };
    // SAFETY: this is the first slot of the queue.
    unsafe { rings.wrapping_add(sq_array).cast::<u32>().write_volatile(0) };
    // SAFETY: this is the tail of the queue.
    unsafe { rings.wrapping_add(sq_tail).cast::<u32>().write_volatile(1) };
    let enter = libc::SYS_io_uring_enter;
    let none = ptr::null::<u8>();
    // SAFETY: the call submits one entry and has no signal mask.
    Errno::result(unsafe { libc::syscall(enter, ring, 1, 1, GETEVENTS, none, 0) })?;
    // SAFETY: this is the result in the first completion, after `user_data`.
    match unsafe { rings.wrapping_add(cqes + 8).cast::<i32>().read_volatile() } {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}
