//! Copies of files for the unprivileged user of the tests, who may be unable to access the checkout, for example in a
//! home directory.
//!
//! The copies are in one directory that belongs to root. The name of each changes with the original, so that a rebuilt
//! file is copied again. Making a copy removes copies whose original has changed or was removed.

use std::{
    fs::{self, DirBuilder, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{lock, make_readable, write_atomically};

/// The directory of the copies.
pub const DIRECTORY: &str = "/var/cache/qfence-tests";

/// In the directory of copies: a directory of symbolic links to their originals.
const ORIGINALS: &str = "originals";

/// A copy of `file` that every user can read and execute, and only root can change, with the same name in another
/// directory. Needs root.
pub fn reachable(file: &Path) -> Result<PathBuf> {
    reachable_together(&[file])
}

/// Copies several files into one directory; returns the path of the first copy.
pub fn reachable_together(files: &[&Path]) -> Result<PathBuf> {
    reachable_below(Path::new(DIRECTORY), files)
        .with_context(|| format!("copy {files:?} to where all users reach it"))
}

/// Like [`reachable_together`], with another directory for the copies.
pub fn reachable_below(directory: &Path, files: &[&Path]) -> Result<PathBuf> {
    let files: Vec<_> = files
        .iter()
        .map(fs::canonicalize)
        .collect::<Result<_, _>>()?;
    let first = files.first().and_then(|file| file.file_name());
    let first = first.context("copy no file")?;
    make(directory)?;
    let _lock = lock(directory)?;
    let dir = directory.join(name_of(&files)?);
    let copy = dir.join(first);
    if !copy.exists() {
        remove_stale(directory)?;
        make(&dir)?;
        let links = dir.join(ORIGINALS);
        make(&links)?;
        // The first file is copied last, so its copy shows that all copies exist.
        for file in files.iter().rev() {
            let name = file.file_name().context("a file has a name")?;
            let link = links.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(file, &link)?;
            }
            write_atomically(&dir.join(name), &fs::read(file)?)?;
        }
    }
    Ok(copy)
}

/// The name of the directory of files' copies. It changes with each change of a file.
fn name_of(files: &[PathBuf]) -> Result<String> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        let metadata = fs::metadata(file)?;
        file.hash(&mut hasher);
        (metadata.dev(), metadata.ino(), metadata.size()).hash(&mut hasher);
        (metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Makes a directory that only root can change, and checks that.
fn make(directory: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o755).create(directory);
    if made.is_ok() {
        make_readable(directory)?;
    }
    let metadata = File::open(directory)
        .and_then(|file| file.metadata())
        .or_else(|error| made.and(Err(error)))
        .with_context(|| format!("make {}", directory.display()))?;
    ensure!(
        metadata.is_dir() && metadata.uid() == 0 && metadata.mode() & 0o022 == 0,
        "{} is not a directory that only root can change",
        directory.display()
    );
    Ok(())
}

/// Removes the copies of files that have changed or were removed.
fn remove_stale(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let dir = entry?.path();
        let current = originals(&dir).and_then(|originals| name_of(&originals));
        if current.map_or(true, |name| dir.file_name() != Some(name.as_ref())) {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
    }
    Ok(())
}

/// The originals of the copies in a directory.
fn originals(dir: &Path) -> Result<Vec<PathBuf>> {
    let links = fs::read_dir(dir.join(ORIGINALS))?;
    links.map(|link| Ok(fs::read_link(link?.path())?)).collect()
}
