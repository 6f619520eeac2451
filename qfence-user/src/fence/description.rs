//! The description of a fence: a small file under /run/qfence, which is also its entry in the registry. The
//! supervisor marks it as long as it lives.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use qfence_common::hook::HookRow;
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        files::{
            PRIVATE_FILE,
            directory::{Directory, Others},
            entries,
            staged::{NEW_SUFFIX, Staged},
        },
        locks::{self, Exclusive, Mark},
        name::Names,
        version,
    },
    fence::{devices::FencedDevice, id::Ids, wired::Wired},
    record::guest::Qemu,
};

/// The suffix of the files.
const SUFFIX: &str = ".json";

/// The most bytes of a command in a description; a command line can have megabytes.
pub const COMMAND: usize = 4096;

/// Facts about a fence, written by the process that makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The command and its arguments, safe to print, and shortened.
    pub command: Vec<String>,
    /// The process id of its supervisor, which may have ended.
    pub supervisor: i32,
    /// The time of its start, RFC 3339.
    pub started: String,
    /// The QEMU that the command starts, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<Qemu>,
    /// The closures of `--strict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strict: Vec<String>,
    /// The ways out that are closed by default and are open for this command, by the kernel or an option.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<String>,
    /// The names of the hooks at which this fence has programs and not every fence has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// The names of the hooks at which this fence has no program and every other fence has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// Its network devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<FencedDevice>,
    /// The network namespace of its processes, if the wires of that are fenced by fences of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wired: Option<Wired>,
    /// The workload that it is attached to, if others have started that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Attached>,
    /// The cgroup of others beneath which its own cgroup is made: a path below the mount of cgroup2. Without it, its
    /// cgroup is among those of all fences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beneath: Option<PathBuf>,
}

/// A workload that others have started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its kind and name, for people.
    pub workload: String,
    /// Its cgroup: a path below the mount of cgroup2.
    pub cgroup: PathBuf,
    /// Whether the fence was left to itself, without a supervisor.
    #[serde(default)]
    pub is_detached: bool,
}

impl Description {
    /// Whether the fence has a program at a hook.
    #[must_use]
    pub fn has(&self, hook: &HookRow) -> bool {
        let is_in = |names: &[String]| names.iter().any(|name| name == hook.name);
        match hook.is_optional {
            true => is_in(&self.hooks),
            false => !is_in(&self.without),
        }
    }
}

/// The content of a fence's file.
#[derive(Serialize)]
struct Content<'a> {
    /// The ABI version of its writer.
    abi: u32,
    #[serde(flatten)]
    ids: &'a Ids,
    #[serde(flatten)]
    description: &'a Description,
}

/// The part of a fence's file that the registry needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The ids of the fence, as far as the file can be parsed.
    pub ids: Ids,
    /// Whether its supervisor lives.
    pub is_supervised: bool,
    /// The path of the cgroup that it is attached to, if others have made that.
    pub attached: Option<PathBuf>,
    /// The path of the cgroup beneath which its own was made, if that is not the top.
    pub beneath: Option<PathBuf>,
}

/// The descriptions of all fences.
#[derive(Clone, Debug)]
pub struct Descriptions {
    directory: PathBuf,
}

impl Descriptions {
    /// The descriptions in `directory`, whether it exists or not.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Their directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a fence's description.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }

    /// Takes the lock under which fences are made, listed and removed.
    ///
    /// # Errors
    /// If the directory cannot be made or locked, or [`Interrupted`](crate::base::interruptible::Interrupted).
    pub fn lock(&self) -> Result<Exclusive> {
        let directory = Directory::make_private(&self.directory)?;
        let file = directory.as_fd().try_clone_to_owned()?;
        locks::exclusive_on(file.into(), &self.directory)
    }

    /// Writes the description of a fence, and marks it as supervised as long as the mark and this process live. Only
    /// root can read it, because a command line can contain secrets.
    ///
    /// # Errors
    /// If the directory or the file cannot be written or marked.
    pub fn write(&self, name: &str, ids: &Ids, description: &Description) -> Result<Mark> {
        let directory = Directory::make_private(&self.directory)?;
        let file = format!("{name}{SUFFIX}");
        let abi = version::abi();
        let text = serde_json::to_vec(&Content {
            abi,
            ids,
            description,
        })?;
        let staged = Staged::write(directory, file.as_ref(), &text, PRIVATE_FILE)?;
        // Marked before it is renamed into place, so that nobody sees it unmarked.
        let mark =
            mark(&staged).with_context(|| format!("cannot mark {}", self.path(name).display()))?;
        staged.keep()?;
        Ok(mark)
    }

    /// Checks that only root can write to the directory, if it exists.
    ///
    /// # Errors
    /// If others can. Nothing in it is used then.
    pub fn check(&self) -> Result<()> {
        Directory::trusted(&self.directory, Others::Read)?;
        Ok(())
    }

    /// Reads the description of a fence; `None` if there is none, or it cannot be read.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Description> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }

    /// The version of a fence's description; `None` if there is none, it cannot be read, or has no version.
    #[must_use]
    pub fn version_of(&self, name: &str) -> Option<u32> {
        /// The fields that all versions have.
        #[derive(Deserialize)]
        struct Version {
            abi: Option<u32>,
        }
        let text = fs::read(self.path(name)).ok()?;
        serde_json::from_slice(&text)
            .ok()
            .and_then(|version: Version| version.abi)
    }

    /// The ids in a description, and whether its supervisor lives; `None` if there is no description. Takes no lock.
    ///
    /// # Errors
    /// If it cannot be read or queried.
    pub fn look(&self, name: &str) -> io::Result<Option<Seen>> {
        let mut file = match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(Some(Seen {
            // Descriptions of all versions have these fields.
            ids: serde_json::from_slice(&text).unwrap_or_default(),
            is_supervised: Mark::is_on(&file)?,
            attached: attached(&text),
            beneath: beneath(&text),
        }))
    }

    /// The names of the fences that have a description, and other files that look like one.
    ///
    /// # Errors
    /// Errors of reading the directory. Without a directory there are no names.
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
    /// Errors of unlink; a missing file is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Some(directory) = Directory::trusted(&self.directory, Others::Read)? else {
            return Ok(());
        };
        let file = format!("{name}{SUFFIX}");
        // The first one exists if a writer was killed.
        for file in [format!("{file}{NEW_SUFFIX}"), file] {
            directory.remove(file.as_ref()).with_context(|| {
                format!("cannot remove {}", self.directory.join(&file).display())
            })?;
        }
        Ok(())
    }
}

/// The path of the cgroup that a fence is attached to, by its description. It leads nowhere but down.
fn attached(text: &[u8]) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Place {
        attached: Option<Attached>,
    }
    let place: Place = serde_json::from_slice(text).ok()?;
    place
        .attached
        .map(|attached| attached.cgroup)
        .filter(|path| leads_down(path))
}

/// The path of the cgroup beneath which the own one of a fence was made, by its description. It leads nowhere but down.
fn beneath(text: &[u8]) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Place {
        beneath: Option<PathBuf>,
    }
    let place: Place = serde_json::from_slice(text).ok()?;
    place.beneath.filter(|path| leads_down(path))
}

fn leads_down(path: &Path) -> bool {
    let is_below = |part| matches!(part, Component::Normal(_));
    path.file_name().is_some() && path.components().all(is_below)
}

fn mark(staged: &Staged) -> io::Result<Mark> {
    Ok(Mark::set(staged.file().try_clone()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::id::FenceId;

    fn description() -> Description {
        Description {
            command: vec!["qemu".into(), "-m".into()],
            supervisor: 7,
            started: "2026-01-01T00:00:00Z".into(),
            qemu: None,
            strict: Vec::new(),
            open: Vec::new(),
            hooks: Vec::new(),
            without: Vec::new(),
            devices: Vec::new(),
            wired: None,
            attached: None,
            beneath: None,
        }
    }

    fn ids() -> Ids {
        Ids {
            id: Some(FenceId::random()),
            cgroup: Some(5573),
        }
    }

    #[test]
    fn what_is_written_is_read_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let descriptions = Descriptions::new(&dir.path().join("qfence"));
        assert_eq!(descriptions.names().unwrap(), Names::default());
        let (ids, description) = (ids(), description());
        assert_eq!(descriptions.look("my.vm").unwrap(), None);
        descriptions.write("my.vm", &ids, &description).unwrap();
        assert_eq!(descriptions.read("my.vm"), Some(description));
        assert_eq!(descriptions.look("my.vm").unwrap().unwrap().ids, ids);
        assert_eq!(
            descriptions.version_of("my.vm"),
            Some(qfence_common::abi::VERSION)
        );
        fs::write(descriptions.directory().join("my.vm.json.new"), "").unwrap();
        assert_eq!(descriptions.names().unwrap().fences, ["my.vm"]);
        descriptions.remove("my.vm").unwrap();
        descriptions.remove("my.vm").unwrap();
        assert_eq!(descriptions.read("my.vm"), None);
        assert_eq!(fs::read_dir(descriptions.directory()).unwrap().count(), 0);
    }

    #[test]
    fn it_is_marked_as_long_as_its_writer_keeps_the_mark() {
        let dir = tempfile::tempdir().unwrap();
        let descriptions = Descriptions::new(dir.path());
        let is_supervised = || descriptions.look("vm1").unwrap().unwrap().is_supervised;
        let first = descriptions.write("vm1", &ids(), &description()).unwrap();
        assert!(is_supervised());
        // A reader has the file open while it is replaced.
        let open = File::open(descriptions.path("vm1")).unwrap();
        let second = descriptions.write("vm1", &ids(), &description()).unwrap();
        assert!(is_supervised() && Mark::is_on(&open).unwrap());
        drop(first);
        assert!(is_supervised());
        drop(second);
        assert!(!is_supervised());
    }

    #[test]
    fn one_that_cannot_be_understood_is_of_no_fence_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let descriptions = Descriptions::new(dir.path());
        for (text, cgroup) in [
            ("{}", None),
            ("no", None),
            (r#"{"cgroup":7,"x":{}}"#, Some(7)),
        ] {
            fs::write(descriptions.path("vm1"), text).unwrap();
            let seen = descriptions.look("vm1").unwrap().unwrap();
            assert_eq!(seen.ids, Ids { id: None, cgroup }, "{text}");
            assert!(!seen.is_supervised);
        }
    }

    #[test]
    fn a_place_of_others_is_below_the_mount() {
        for (path, expected) in [
            ("a.slice/b.scope", Some("a.slice/b.scope")),
            ("/a", None),
            ("../a", None),
            ("a/../../b", None),
            ("", None),
        ] {
            let text = format!(r#"{{"attached":{{"workload":"x","cgroup":"{path}"}}}}"#);
            let found = attached(text.as_bytes());
            assert_eq!(found.as_deref(), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn a_hook_without_a_program_is_told() {
        let mut of = description();
        assert!(of.has(qfence_common::Hook::Device.row()));
        of.without.push("device".into());
        assert!(!of.has(qfence_common::Hook::Device.row()));
        assert!(of.has(qfence_common::Hook::Connect4.row()));
    }

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let descriptions = Descriptions::new(dir.path());
        for file in ["...json", ".json", "..json", "a\nb.json", "vm1.json"] {
            fs::write(dir.path().join(file), "{}").unwrap();
        }
        let names = descriptions.names().unwrap();
        assert_eq!(names.fences, ["vm1"]);
        assert_eq!(names.others.len(), 4, "{names:?}");
    }
}
