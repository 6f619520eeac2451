//! Reads what engines keep on disk. Each file has a limit, and each list too: root reads nothing without a bound.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::base::files::bounded;

/// The most bytes of a file of one container.
pub(super) const ONE: u64 = 4 << 20;

/// The most bytes of a file with all containers of an engine.
pub(super) const ALL: u64 = 64 << 20;

/// The most bytes of a file with a number.
const NUMBER: u64 = 64;

/// The most entries of a directory.
const ENTRIES: usize = 100_000;

/// Reads a file; `None` if it does not exist.
pub(super) fn bytes(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    match bounded::read(path, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Reads a file of JSON; `None` if it does not exist.
pub(super) fn json<T: DeserializeOwned>(path: &Path, most: u64) -> Result<Option<T>> {
    let Some(bytes) = bytes(path, most)? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes);
    Ok(Some(value.with_context(|| {
        format!("cannot understand {}", path.display())
    })?))
}

/// Reads a file with the number of a process; `None` if it does not exist or is empty.
pub(super) fn pid(path: &Path) -> Result<Option<i32>> {
    let Some(bytes) = bytes(path, NUMBER)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.trim() {
        "" => Ok(None),
        text => {
            let number = text.parse().ok().filter(|pid| *pid > 0);
            let number = number.with_context(|| format!("{} has no process id", path.display()))?;
            Ok(Some(number))
        }
    }
}

/// The names of the directories in a directory that are text; none if it does not exist.
pub(super) fn directories(path: &Path) -> Result<Vec<String>> {
    let context = || format!("cannot read {}", path.display());
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    let mut names = Vec::new();
    for (number, entry) in entries.enumerate() {
        if number == ENTRIES {
            bail!("{} has more than {ENTRIES} entries", path.display());
        }
        let entry = entry.with_context(context)?;
        // It has ended or was removed. /proc does not tell the type of a process that ends while it is listed
        // (`proc_fill_cache` in fs/proc/base.c), so the name is looked up.
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind.with_context(context)?,
        };
        if !kind.is_dir() {
            continue;
        }
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a text is one file name, so that a path with it stays in its directory.
pub(super) fn is_file_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_number_is_read_as_engines_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert_eq!(pid(&path).unwrap(), None);
        for (text, number) in [("145", Some(145)), ("145\n", Some(145)), ("", None)] {
            fs::write(&path, text).unwrap();
            assert_eq!(pid(&path).unwrap(), number, "{text:?}");
        }
        for text in ["x", "-1", "0", "99999999999", &"1".repeat(65)] {
            fs::write(&path, text).unwrap();
            assert!(pid(&path).is_err(), "{text:?}");
        }
    }

    #[test]
    fn json_is_read_up_to_the_bound_and_no_deeper_than_the_stack_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(json::<Value>(&path, ONE).unwrap().is_none());
        fs::write(&path, "[1]").unwrap();
        assert!(json::<Value>(&path, 3).unwrap().is_some());
        assert!(json::<Value>(&path, 2).is_err());
        fs::write(&path, "[".repeat(1 << 20)).unwrap();
        assert!(json::<Value>(&path, ONE).is_err());
    }

    #[test]
    fn only_directories_are_listed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        assert_eq!(directories(dir.path()).unwrap(), ["a", "b"]);
        assert!(directories(&dir.path().join("none")).unwrap().is_empty());
    }
}
