//! Writes the files of the list below a directory, with the dates of the commit, and removes them again.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};

use super::{Content, Row};
use crate::shell;

/// Writes the files. `date`, in seconds since 1970, is the date of each.
pub(crate) fn write(rows: &[Row], prefix: &Path, date: u64) -> Result<()> {
    for row in rows {
        let path = prefix.join(&row.path);
        put(&row.content, &path, date).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Writes a file beside its place and renames it: it is never there in part, and a running program, which cannot be
/// written to, can be replaced.
fn put(content: &Content, path: &Path, date: u64) -> Result<()> {
    let dir = path.parent().context("a path without a directory")?;
    fs::create_dir_all(dir)?;
    let name = path.file_name().context("a path without a name")?;
    let partial = dir.join(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mode = match content {
        Content::Link(target) => {
            symlink(target, &partial)?;
            return Ok(fs::rename(&partial, path)?);
        }
        Content::Program(program) => {
            fs::copy(program, &partial)
                .with_context(|| format!("copying {}", program.display()))?;
            0o755
        }
        Content::Compressed(file) => {
            fs::write(&partial, gzip(file)?)?;
            0o644
        }
        Content::Text(text) => {
            fs::write(&partial, text)?;
            0o644
        }
        Content::Script(text) => {
            fs::write(&partial, text)?;
            0o755
        }
    };
    fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
    let file = fs::File::options().append(true).open(&partial)?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(date))?;
    Ok(fs::rename(&partial, path)?)
}

/// The file, compressed without its name and date, which would differ between checkouts.
fn gzip(file: &Path) -> Result<Vec<u8>> {
    let mut gzip = shell::program("gzip");
    let output = gzip
        .args(["-9", "--no-name", "--stdout"])
        .arg(file)
        .output()
        .context("starting gzip")?;
    anyhow::ensure!(output.status.success(), "gzip failed on {}", file.display());
    Ok(output.stdout)
}

/// Writes the files below a directory that did not exist, whose directories get the mode that they have in a package.
pub(crate) fn write_tree(rows: &[Row], root: &Path, prefix: &Path, date: u64) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
    }
    let below = below(root, prefix);
    write(rows, &below, date)?;
    let dirs = directories(rows.iter().map(|row| row.path.as_path()));
    let own = dirs.iter().map(|dir| below.join(dir));
    let above = below.ancestors().take_while(|dir| dir.starts_with(root));
    for dir in own.chain(above.map(Path::to_owned)) {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("changing the mode of {}", dir.display()))?;
    }
    Ok(())
}

/// The prefix below a staging directory, as used by packagers.
pub(crate) fn below(root: &Path, prefix: &Path) -> PathBuf {
    root.join(prefix.strip_prefix("/").unwrap_or(prefix))
}

/// Removes files, and then the directories of qfence's own that are empty. Returns what was removed.
pub(crate) fn remove(paths: &[PathBuf], prefix: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for path in paths.iter().map(|path| prefix.join(path)) {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
        }
    }
    for dir in directories(paths.iter().map(PathBuf::as_path)).iter().rev() {
        if !is_own(dir) {
            continue;
        }
        match fs::remove_dir(prefix.join(dir)) {
            // Somebody else's file is there.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.with_context(|| format!("removing {}", prefix.join(dir).display()))?,
        }
    }
    Ok(removed)
}

/// Whether a directory is qfence's, as share/qfence and what is below it.
pub(crate) fn is_own(dir: &Path) -> bool {
    dir.components().any(|part| part.as_os_str() == "qfence")
}

/// The directories of files, parents first.
pub(crate) fn directories<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let parents = files.flat_map(|file| file.ancestors().skip(1));
    let mut dirs: Vec<_> = parents
        .filter(|dir| !dir.as_os_str().is_empty())
        .map(Path::to_owned)
        .collect();
    dirs.sort();
    dirs.dedup();
    dirs
}
