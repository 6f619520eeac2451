//! A file for node_exporter's textfile collector, which can read it at any moment.

use std::path::Path;

use anyhow::Result;
use nix::sys::stat::Mode;

use crate::base::files::staged::replace;

/// The collector runs as another user.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// Replaces the file atomically.
///
/// # Errors
/// If the file cannot be written, or the path is not a regular file. The path is then unchanged.
pub fn write(path: &Path, text: &str) -> Result<()> {
    Ok(replace(path, text.as_bytes(), MODE)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
