//! A file system whose one file can be opened and never read from, and a process that maps it: what it has of memory is
//! locked from then on, and whoever looks into it waits. Only root may open /dev/fuse here; where
//! everybody may, as on most machines, the same goes for them, in a user namespace.

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

/// Its page.
const PAGE: u32 = 4096;
/// The file's number; the directory's is 1.
const NODE: u64 = 2;

/// The requests that there are answers to (linux/fuse.h).
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const ENOSYS: i32 = 38;
/// `FOPEN_DIRECT_IO`, and `FOPEN_KEEP_CACHE`: it is not to be the opening that waits.
const DIRECT_IO: u32 = 1 | 2;

/// Time enough for another thread to come to where it waits.
const STEP: Duration = Duration::from_millis(500);

/// Puts the file system on a directory, in a mount namespace of its own, and has a process of the same file get stuck
/// there, until the end of this one's input.
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
    // Nobody serves from then on, and so nobody waits either.
    child.kill()?;
    std::process::exit(0)
}

/// Has a thread hold the lock on this process's memory for as long as nobody answers, and then tries to reach the host.
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
    // The page is locked until it is read.
    thread::spawn(move || {
        // SAFETY: a byte of the mapping, which is never undone.
        unsafe { (page as *const u8).read_volatile() }
    });
    thread::sleep(STEP);
    // A file that is opened a second time is not to be cached: as it is mapped, what is cached is done away with, page by
    // page, and so this waits for that page with the lock held (`fuse_file_mmap` in fs/fuse/file.c, `vm_mmap_pgoff`).
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

/// Answers what it must, and never a read.
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
            // Version 7.19, which asks for the least.
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
        // Some requests want no answer.
        let _ = device.write(&reply);
    }
}

/// `struct fuse_attr`: of a directory, or a file of one page.
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
