//! A file for node_exporter's textfile collector, which may read it at any moment.

use std::path::Path;

use anyhow::Result;
use nix::sys::stat::Mode;

use crate::base::files::staged::replace;

/// The collector runs as another user.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// Writes the file, in one step for whoever reads it.
///
/// # Errors
/// If it cannot be written, or something else than a regular file is there; what was there before is still
/// there then.
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
