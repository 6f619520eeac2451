//! A FUSE file system with one file that can be opened but never read, and a process that maps this file. From then on the
//! memory of the process is locked, and every reader of that memory blocks. Only root can open /dev/fuse here; on most
//! machines every user can, and can mount such a file system in a user namespace.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _, stdin, stdout},
    net::{Ipv4Addr, UdpSocket},
    num::NonZeroUsize,
    os::fd::AsRawFd as _,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::mman::{MapFlags, ProtFlags, mmap},
};

/// The size of a page in bytes.
const PAGE: u32 = 4096;
/// The node number of the file; that of the directory is 1.
const NODE: u64 = 2;

/// The requests that are answered, and `READ`, which is not (linux/fuse.h).
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const ENOSYS: i32 = 38;
/// `FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE`. The latter, so that open() does not block on the locked page.
const DIRECT_IO: u32 = 1 | 2;

/// Enough time for another thread to reach the call in which it blocks.
const STEP: Duration = Duration::from_millis(500);

/// Mounts the file system on a directory, in a mount namespace of its own, and starts a process of the same executable that
/// blocks there, until the end of this process's input.
pub(crate) fn serve_stuck(directory: &Path) -> Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let mut device = device.context("open /dev/fuse")?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let options = Some(options.as_str());
    mount(
        Some("mute"),
        directory,
        Some("fuse"),
        MsFlags::empty(),
        options,
    )
    .context("mount a file system")?;
    thread::spawn(move || serve(&mut device));
    let mut child = Command::new("/proc/self/exe");
    let mut child = child
        .env(crate::WORDS, format!("stuck:{}", directory.display()))
        .spawn()?;
    stdin().read_to_end(&mut Vec::new())?;
    // The end of this process ends the file system and all calls that wait for it.
    child.kill()?;
    std::process::exit(0)
}

/// Starts a thread that keeps the lock on this process's memory as long as the file system does not answer, and then tries
/// to reach the host.
pub(crate) fn get_stuck(directory: &Path) -> Result<()> {
    let path = directory.join("file");
    let file = File::open(&path).context("open the file")?;
    let length = NonZeroUsize::new(PAGE as usize).context("a page")?;
    let (protection, private) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
    // SAFETY: a new mapping, wherever there is room.
    let page = unsafe { mmap(None, length, protection, private, &file, 0) }?
        .addr()
        .get();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    writeln!(stdout(), "stuck")?;
    // The kernel locks the page until its content has been read.
    thread::spawn(move || {
        // SAFETY: a byte of the mapping, which is never unmapped.
        unsafe { (page as *const u8).read_volatile() }
    });
    thread::sleep(STEP);
    // The second open has FOPEN_DIRECT_IO. Mapping such a file drops the cached pages one by one, so this thread waits for
    // the locked page while it holds the lock of the memory (`fuse_file_mmap` in fs/fuse/file.c, `vm_mmap_pgoff`).
    thread::spawn(move || {
        let again = File::open(&path)?;
        // SAFETY: as above.
        unsafe { mmap(None, length, protection, private, &again, 0) }?;
        anyhow::Ok(())
    });
    thread::sleep(STEP);
    let _ = socket.send_to(b"!", (Ipv4Addr::LOCALHOST, 9));
    loop {
        thread::sleep(STEP);
    }
}

/// Answers the necessary requests, but never a read.
fn serve(device: &mut File) -> Result<()> {
    let mut request = vec![0; 128 * 1024];
    let mut opened = 0;
    loop {
        let length = device.read(&mut request)?;
        let word = |at: usize| -> Result<u32> {
            Ok(u32::from_ne_bytes(
                request[..length][at..at + 4].try_into()?,
            ))
        };
        let unique: [u8; 8] = request[8..16].try_into()?;
        let answer = match word(4)? {
            // Version 7.19, which needs the fewest requests.
            INIT => Ok(words(&[7, 19, 0, 0, 0, PAGE])),
            LOOKUP => Ok([words64(&[NODE, 0, 3600, 3600, 0]), attributes(NODE)].concat()),
            GETATTR => {
                let node = u64::from(word(16)?);
                Ok([words64(&[3600, 0]), attributes(node)].concat())
            }
            OPEN => {
                opened += 1;
                Ok(words(&[1, 0, if opened == 1 { 0 } else { DIRECT_IO }, 0]))
            }
            FLUSH => Ok(Vec::new()),
            READ => continue,
            _ => Err(ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let length = u32::try_from(16 + body.len())?.to_ne_bytes();
        let reply = [&length[..], &error.to_ne_bytes(), &unique, &body].concat();
        // Some requests take no answer; writing then fails.
        let _ = device.write(&reply);
    }
}

/// `struct fuse_attr` of the directory, or of the file of one page.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == NODE {
        (0o100_555, u64::from(PAGE))
    } else {
        (0o40_755, 0)
    };
    let times = words64(&[node, size, 8, 0, 0, 0]);
    [times, words(&[0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0])].concat()
}

fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn words64(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
