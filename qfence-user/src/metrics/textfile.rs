//! A file for node_exporter's textfile collector, which may read it at any moment.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context, Result};

/// Writes the file, in one step for whoever reads it.
///
/// # Errors
/// If it cannot be written; what was there before is still there then.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The collector reads *.prom alone.
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = || {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o644)
            .open(&new)?
            .write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    written()
        .inspect_err(|_| {
            // It may not even have been made.
            let _ = fs::remove_file(&new);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qfence.prom");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/such"), "x").is_err());
    }
}
