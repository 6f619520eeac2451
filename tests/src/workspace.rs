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

/// The variable that requests all cases of tests that otherwise run a sample.
pub const WHOLE: &str = "QFENCE_TESTS_WHOLE";

/// The directory in which the guests' files are built and kept: `target/guest`.
pub fn guest_dir() -> Result<PathBuf> {
    let dir = root().join("target/guest");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// The lock for building shared files; released on drop.
#[derive(Debug)]
pub struct BuildLock {
    // The file comes first: fields are dropped in order, and the lock between threads is the outer one.
    _processes: File,
    _threads: MutexGuard<'static, ()>,
}

/// Takes the lock on `dir`, against other threads and other processes. It leaves no lock file.
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

/// Writes a file in one step, so that no reader sees an incomplete one.
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

/// A value that is made once per process. An error is kept as text, for every caller.
#[derive(Debug)]
pub struct Once<T>(OnceLock<Result<T, String>>);

impl<T: Clone> Once<T> {
    /// Makes an empty value.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the value; the first call makes it.
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
