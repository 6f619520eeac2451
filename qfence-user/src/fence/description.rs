//! What is known of a fence beside the kernel's objects: a small file under /run/qfence.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        files::{
            PRIVATE_FILE,
            directory::{Directory, Others},
            entries,
            staged::{NEW_SUFFIX, Staged},
        },
        name::Names,
        version,
    },
    record::guest::Qemu,
};

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
    /// The id of its cgroup, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// The QEMU that the command starts, if it starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<Qemu>,
}

/// The file: the description, and the version of who wrote it.
#[derive(Serialize)]
struct Versioned<'a> {
    abi: u32,
    #[serde(flatten)]
    state: &'a State,
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

    /// That of one fence.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }

    /// Writes the description of one fence. A command line can hold secrets: for root's eyes.
    ///
    /// # Errors
    /// If the directory or the file cannot be written.
    pub fn write(&self, name: &str, state: &State) -> Result<()> {
        let directory = Directory::make_private(&self.directory)?;
        let file = format!("{name}{SUFFIX}");
        let abi = version::abi();
        let text = serde_json::to_vec(&Versioned { abi, state })?;
        Staged::write(directory, file.as_ref(), &text, PRIVATE_FILE)?.keep()
    }

    /// Makes sure that the directory, if it is there, is root's alone to write to.
    ///
    /// # Errors
    /// If it is not: then nothing in it is used.
    pub fn check(&self) -> Result<()> {
        Directory::trusted(&self.directory, Others::Read).map(drop)
    }

    /// The description of one fence; `None` if there is none that can be read.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<State> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }

    /// The version that a fence's description has; `None` if there is no description that can be read, or none that has
    /// a version.
    #[must_use]
    pub fn version_of(&self, name: &str) -> Option<u32> {
        /// What every version's descriptions have of that.
        #[derive(Deserialize)]
        struct Version {
            abi: Option<u32>,
        }
        let text = fs::read(self.path(name)).ok()?;
        serde_json::from_slice(&text)
            .ok()
            .and_then(|version: Version| version.abi)
    }

    /// The id of a fence's cgroup, as its description has it; `None` if there is no description, or none that has it.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn cgroup_of(&self, name: &str) -> io::Result<Option<u64>> {
        /// What every version's descriptions have of that.
        #[derive(Deserialize)]
        struct Id {
            cgroup: Option<u64>,
        }
        match fs::read(self.path(name)) {
            Ok(text) => Ok(serde_json::from_slice(&text)
                .ok()
                .and_then(|id: Id| id.cgroup)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of the fences that are described, and what looks like a description and is of no fence.
    ///
    /// # Errors
    /// What reading the directory fails with; where there is none, there are none.
    pub fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        for entry in entries(&self.directory)? {
            let file = entry.file_name();
            if file.as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
                let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
                names.add(name, &entry.path());
            }
        }
        Ok(names)
    }

    /// Removes the description of one fence.
    ///
    /// # Errors
    /// What unlink fails with; that it is gone already is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Some(directory) = Directory::trusted(&self.directory, Others::Read)? else {
            return Ok(());
        };
        let file = format!("{name}{SUFFIX}");
        // The other one is there if this was killed as it wrote.
        for file in [format!("{file}{NEW_SUFFIX}"), file] {
            directory.remove(file.as_ref()).with_context(|| {
                format!("cannot remove {}", self.directory.join(&file).display())
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let states = States::new(&dir.path().join("qfence"));
        assert_eq!(states.names().unwrap(), Names::default());
        let state = State {
            command: vec!["qemu".into(), "-m".into()],
            supervisor: 7,
            started: "2026-01-01T00:00:00Z".into(),
            cgroup: Some(5573),
            qemu: None,
        };
        assert_eq!(states.cgroup_of("my.vm").unwrap(), None);
        states.write("my.vm", &state).unwrap();
        assert_eq!(states.read("my.vm"), Some(state));
        assert_eq!(states.cgroup_of("my.vm").unwrap(), Some(5573));
        assert_eq!(states.version_of("my.vm"), Some(1));
        fs::write(states.directory().join("my.vm.json.new"), "").unwrap();
        assert_eq!(states.names().unwrap().fences, ["my.vm"]);
        states.remove("my.vm").unwrap();
        states.remove("my.vm").unwrap();
        assert_eq!(states.read("my.vm"), None);
        assert_eq!(fs::read_dir(states.directory()).unwrap().count(), 0);
    }

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let states = States::new(dir.path());
        for file in ["...json", ".json", "..json", "a\nb.json", "vm1.json"] {
            fs::write(dir.path().join(file), "{}").unwrap();
        }
        let names = states.names().unwrap();
        assert_eq!(names.fences, ["vm1"]);
        assert_eq!(names.others.len(), 4, "{names:?}");
    }
}
