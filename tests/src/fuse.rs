//! A file system of FUSE with one file, whose reads are never answered: who reads it, executes it or touches a page of it,
//! is stuck in the kernel until this is released.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{namespace::Namespace, run::wait_until, workspace};

/// The kinds of requests that are answered, and READ (`enum fuse_opcode` in linux/fuse.h).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ENOSYS: i32 = 38;

/// The inodes of the root and of the file.
const ROOT: u64 = 1;
const STUCK: u64 = 2;

/// The size of the file: a page.
const SIZE: u64 = 4096;

/// The file system. Releasing or dropping it fails all that waits for it.
#[derive(Debug)]
pub struct Fuse {
    dir: tempfile::TempDir,
    reads: Arc<AtomicUsize>,
    /// Whose mounts it is among, if they are not the test's.
    host: Option<Namespace>,
    is_mounted: bool,
}

impl Fuse {
    /// Mounts one, for all users to read.
    pub fn new() -> Result<Self> {
        Self::with_slow_close(Duration::ZERO)
    }

    /// The same, where it takes a while to close the file.
    pub fn with_slow_close(duration: Duration) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qfence-fuse-").tempdir()?;
        workspace::make_readable(dir.path())?;
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.context("open /dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("stuck"),
            dir.path(),
            Some("fuse"),
            flags,
            Some(&*options),
        )
        .context("mount a file system of FUSE")?;
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        thread::spawn(move || serve(device, &count, duration));
        Ok(Self {
            dir,
            reads,
            host: None,
            is_mounted: true,
        })
    }

    /// Mounts one among the mounts of a host.
    pub fn on(host: &Namespace) -> Result<Self> {
        let mut fuse = host.run(Self::new)?;
        fuse.host = Some(host.clone());
        Ok(fuse)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("stuck")
    }

    /// Waits until as many reads as that have been asked for.
    pub fn await_reads(&self, count: usize) -> Result<()> {
        wait_until("the file is read", || {
            Ok(self.reads.load(Ordering::Relaxed) >= count)
        })
    }

    /// Fails all that waits, and takes it away.
    pub fn release(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_mounted) {
            let point = self.dir.path();
            match &self.host {
                Some(host) => host.run(|| abort(point))?,
                None => abort(point)?,
            }
        }
        Ok(())
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // A destructor has nobody to tell.
        let _ = self.release();
    }
}

/// By force the connection is aborted first (`fuse_umount_begin` in fs/fuse/inode.c).
fn abort(point: &Path) -> Result<()> {
    // Busy it is until those that wait have gone.
    let _ = umount2(point, MntFlags::MNT_FORCE);
    let _ = umount2(point, MntFlags::MNT_DETACH);
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    anyhow::ensure!(!mounts.contains(&*point.to_string_lossy()), "still mounted");
    Ok(())
}

fn serve(mut device: File, reads: &AtomicUsize, flush: Duration) {
    let mut buffer = vec![0; 1 << 20];
    // It ends with the connection.
    while let Ok(length) = device.read(&mut buffer) {
        let Some(request) = Request::parse(&buffer[..length]) else {
            return;
        };
        let answer = match request.kind {
            INIT => Ok(init()),
            LOOKUP => Ok(lookup()),
            GETATTR => Ok([words(&[1, 0]), attributes(request.node)].concat()),
            OPEN => Ok(words(&[0, 0])),
            READ => {
                reads.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            FLUSH => {
                thread::sleep(flush);
                Ok(Vec::new())
            }
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => Err(ENOSYS),
        };
        let (error, data) = match answer {
            Ok(data) => (0, data),
            Err(errno) => (-errno, Vec::new()),
        };
        let length = u32::try_from(16 + data.len()).unwrap_or_default();
        let head = [length.to_ne_bytes(), error.to_ne_bytes()].concat();
        let whole = [head, words(&[request.unique]), data].concat();
        // Who asked may be gone.
        let _ = device.write(&whole);
    }
}

struct Request {
    kind: u32,
    unique: u64,
    node: u64,
}

impl Request {
    /// `struct fuse_in_header`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            kind: u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?),
            unique: long(8)?,
            node: long(16)?,
        })
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct fuse_init_out` of version 7.31.
fn init() -> Vec<u8> {
    let mut out: Vec<u8> = [7_u32, 31, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    // How many requests there may be in the background, and how much may be written at once.
    out.extend([12_u16, 10].iter().flat_map(|word| word.to_ne_bytes()));
    out.extend([4096_u32, 1].iter().flat_map(|word| word.to_ne_bytes()));
    out.resize(64, 0);
    out
}

/// `struct fuse_entry_out`: whatever is looked for is the file.
fn lookup() -> Vec<u8> {
    [words(&[STUCK, 0, 1000, 1000, 0]), attributes(STUCK)].concat()
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode: u32 = if node == ROOT { 0o40755 } else { 0o100_777 };
    let mut out = words(&[node, SIZE, 8, 0, 0, 0]);
    // Nanoseconds, mode, links, user, group, device, block size, flags.
    let rest = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
    out.extend(rest.iter().flat_map(|word| word.to_ne_bytes()));
    out
}
