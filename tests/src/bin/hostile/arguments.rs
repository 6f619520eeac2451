//! Arguments of any length, beyond the limit of execve.

use std::{fs, mem::size_of, num::NonZeroUsize};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc::{self, c_ulong},
    sys::mman::{MapFlags, ProtFlags, mmap_anonymous},
};

/// `struct prctl_mm_map` of linux/prctl.h.
#[derive(Default)]
#[repr(C)]
struct Map {
    code: [u64; 2],
    data: [u64; 2],
    brk: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Makes this number of zeros the arguments of this process.
pub(crate) fn lengthen(bytes: usize) -> Result<()> {
    let length = NonZeroUsize::new(bytes).context("the length must not be 0")?;
    let (protection, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let start = unsafe { mmap_anonymous(None, length, protection, flags) }?
        .addr()
        .get() as u64;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, after) = stat
        .rsplit_once(')')
        .context("no name in /proc/self/stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // The numbers are those of proc_pid_stat(5). Field 3 is the first after the name.
    let field = |number: usize| -> Result<u64> { Ok(fields[number - 3].parse()?) };
    let map = Map {
        code: [field(26)?, field(27)?],
        data: [field(45)?, field(46)?],
        // An empty heap.
        brk: [field(47)?, field(47)?],
        stack: field(28)?,
        arguments: [start, start + bytes as u64],
        environment: [field(50)?, field(51)?],
        exe_fd: u32::MAX,
        ..Map::default()
    };
    let size = size_of::<Map>() as c_ulong;
    let how = libc::PR_SET_MM_MAP as c_ulong;
    // SAFETY: the kernel reads a struct of that size.
    let set = unsafe { libc::prctl(libc::PR_SET_MM, how, &raw const map, size, 0) };
    Errno::result(set).context("cannot set the arguments")?;
    Ok(())
}
