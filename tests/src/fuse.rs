//! A FUSE file system with one file whose reads are never answered. A process that reads or executes it, or touches a
//! page of its mapping, is blocked in the kernel until the file system is released.

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

/// The requests that are answered, and READ (`enum fuse_opcode` in linux/fuse.h).
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

/// The size of the file, in bytes: one page.
const SIZE: u64 = 4096;

/// The file system. Releasing or dropping it fails all waiting requests.
#[derive(Debug)]
pub struct Fuse {
    dir: tempfile::TempDir,
    reads: Arc<AtomicUsize>,
    /// The host in whose mount namespace it is mounted, if it is not the test's.
    host: Option<Namespace>,
    is_mounted: bool,
}

impl Fuse {
    /// Mounts it with a file that all users can read.
    pub fn new() -> Result<Self> {
        Self::with_slow_close(Duration::ZERO)
    }

    /// Like [`Self::new`], but closing the file takes this long.
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

    /// Like [`Self::new`], in the mount namespace of a host.
    pub fn on(host: &Namespace) -> Result<Self> {
        let mut fuse = host.run(Self::new)?;
        fuse.host = Some(host.clone());
        Ok(fuse)
    }

    /// The path of the file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("stuck")
    }

    /// Waits until `count` reads were requested.
    pub fn await_reads(&self, count: usize) -> Result<()> {
        wait_until("the file is read", || {
            Ok(self.reads.load(Ordering::Relaxed) >= count)
        })
    }

    /// Fails all waiting requests, and unmounts the file system.
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
        // A destructor cannot report an error.
        let _ = self.release();
    }
}

/// With `MNT_FORCE`, the kernel first aborts the connection (`fuse_umount_begin` in fs/fuse/inode.c).
fn abort(point: &Path) -> Result<()> {
    // The mount is busy until the waiting processes have left it.
    let _ = umount2(point, MntFlags::MNT_FORCE);
    let _ = umount2(point, MntFlags::MNT_DETACH);
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    anyhow::ensure!(!mounts.contains(&*point.to_string_lossy()), "still mounted");
    Ok(())
}

fn serve(mut device: File, reads: &AtomicUsize, flush: Duration) {
    let mut buffer = vec![0; 1 << 20];
    // The read fails when the connection ends.
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
        // The requesting process may have ended.
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
    // The maximum number of background requests, its congestion threshold, and the maximum bytes of a write.
    out.extend([12_u16, 10].iter().flat_map(|word| word.to_ne_bytes()));
    out.extend([4096_u32, 1].iter().flat_map(|word| word.to_ne_bytes()));
    out.resize(64, 0);
    out
}

/// `struct fuse_entry_out`: every name resolves to the file.
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
