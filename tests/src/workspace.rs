//! The workspace's paths, and the lock under which shared files are built once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result, anyhow};

/// The workspace's root directory.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The variable by which a run is asked for all of what is sampled otherwise.
pub const WHOLE: &str = "QFENCE_TESTS_WHOLE";

/// Where the guests' files are built and kept: `target/guest`.
pub fn guest_dir() -> Result<PathBuf> {
    let dir = root().join("target/guest");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// The right to build what is shared; given up on drop.
#[derive(Debug)]
pub struct BuildLock {
    // The file first: fields are dropped in order, and it is the outer threads that wait longest.
    _processes: File,
    _threads: MutexGuard<'static, ()>,
}

/// Takes the lock on `dir`, against other threads and other processes; leaves no lock file.
pub fn lock(dir: &Path) -> Result<BuildLock> {
    static THREADS: Mutex<()> = Mutex::new(());
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let file = File::open(dir).with_context(|| format!("open {}", dir.display()))?;
    file.lock()
        .with_context(|| format!("lock {}", dir.display()))?;
    Ok(BuildLock {
        _processes: file,
        _threads: threads,
    })
}

/// Puts a file in place in one step, so that nobody ever sees half of it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file's path has a parent")?;
    let temporary = tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("create a file in {}", dir.display()))?;
    fs::write(temporary.path(), bytes).with_context(|| format!("write {}", path.display()))?;
    make_readable(temporary.path())?;
    temporary
        .persist(path)
        .with_context(|| format!("rename to {}", path.display()))?;
    Ok(())
}

/// Lets every user read `path` (and enter it, if it is a directory): guests may run as nobody.
pub fn make_readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod {}", path.display()))
}

/// Something that is made once in a process. The error is kept as text, for every caller.
#[derive(Debug)]
pub struct Once<T>(OnceLock<Result<T, String>>);

impl<T: Clone> Once<T> {
    /// Not yet made.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What `make` makes, or made.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let made = self
            .0
            .get_or_init(|| make().map_err(|error| format!("{error:#}")));
        made.clone().map_err(|error| anyhow!(error))
    }
}

impl<T: Clone> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}
