//! What is known of a fence beside the kernel's objects: a small file under /run/qfence.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::audit::guest::Qemu;

/// The ending of the files' names.
const SUFFIX: &str = ".json";

/// How much of a command a description has, in bytes: one can have megabytes of arguments.
pub const COMMAND: usize = 4096;

/// The description of a fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The command and its arguments, safe to print, and shortened.
    pub command: Vec<String>,
    /// The process that supervises, or did.
    pub supervisor: i32,
    /// When it was started, RFC 3339.
    pub started: String,
    /// The QEMU that the command starts, if it starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<Qemu>,
}

/// The descriptions of all fences.
#[derive(Clone, Debug)]
pub struct States {
    directory: PathBuf,
}

impl States {
    /// The descriptions in `directory`, which need not be there yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }

    /// Writes the description of one fence. A command line can hold secrets: for root's eyes.
    ///
    /// # Errors
    /// If the directory or the file cannot be written.
    pub fn write(&self, name: &str, state: &State) -> Result<()> {
        let path = self.path(name);
        let context = || format!("cannot write {}", path.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .with_context(context)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .with_context(context)?;
        file.write_all(&serde_json::to_vec(state)?)
            .with_context(context)
    }

    /// The description of one fence; `None` if there is none that can be read.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<State> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }

    /// The names of the fences that are described.
    ///
    /// # Errors
    /// What reading the directory fails with; where there is none, there are none.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            names.extend(
                name.to_str()
                    .and_then(|name| name.strip_suffix(SUFFIX))
                    .map(String::from),
            );
        }
        Ok(names)
    }

    /// Removes the description of one fence.
    ///
    /// # Errors
    /// What unlink fails with; that it is gone already is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let states = States::new(&dir.path().join("qfence"));
        assert_eq!(states.names().unwrap(), [""; 0]);
        let state = State {
            command: vec!["qemu".into(), "-m".into()],
            supervisor: 7,
            started: "2026-01-01T00:00:00Z".into(),
            qemu: None,
        };
        states.write("my.vm", &state).unwrap();
        assert_eq!(states.read("my.vm"), Some(state));
        assert_eq!(states.names().unwrap(), ["my.vm"]);
        states.remove("my.vm").unwrap();
        states.remove("my.vm").unwrap();
        assert_eq!(states.read("my.vm"), None);
    }
}
