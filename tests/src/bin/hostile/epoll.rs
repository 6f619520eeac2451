//! An epoll instance that nobody else can look at: the kernel keeps its lock while it writes events to memory of this
//! process, and the file that supplies this memory is never read.

use std::{
    fs::File,
    io::{self, Write as _, stdout},
    num::NonZeroUsize,
    path::Path,
    ptr,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap},
};

/// The size of a page in bytes.
const PAGE: usize = 4096;

/// Waits for an event that is written to a page of the file. Prints the descriptor of the epoll instance before.
pub(crate) fn wait_in(file: &Path) -> Result<()> {
    let file = File::open(file).context("open the file")?;
    let length = NonZeroUsize::new(PAGE).context("a page")?;
    let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, wherever there is room. It is never unmapped.
    let events = unsafe { mmap(None, length, writable, MapFlags::MAP_PRIVATE, &file, 0) }?;
    // SAFETY: the call gets no address.
    let epoll = unsafe { libc::epoll_create1(0) };
    // SAFETY: as above.
    let event = unsafe { libc::eventfd(1, 0) };
    ensure!(epoll >= 0 && event >= 0, io::Error::last_os_error());
    let mut wanted = libc::epoll_event {
        events: u32::try_from(libc::EPOLLIN)?,
        u64: 0,
    };
    // SAFETY: the kernel reads the event, which lives as long as the call.
    let added = unsafe {
        libc::epoll_ctl(
            epoll,
            libc::EPOLL_CTL_ADD,
            event,
            ptr::from_mut(&mut wanted),
        )
    };
    ensure!(added == 0, io::Error::last_os_error());
    writeln!(stdout(), "{epoll}")?;
    // SAFETY: the mapping has room for an event.
    unsafe { libc::epoll_wait(epoll, events.cast().as_ptr(), 1, -1) };
    Ok(())
}
