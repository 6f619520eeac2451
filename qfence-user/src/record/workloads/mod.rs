//! Which workload an attempt is of. A fence can be attached to a cgroup with several workloads, such as a slice. The programs
//! report the id of a cgroup, and the cgroup can be gone before its path is looked up. So the members of the place are listed
//! once per second, and what was found stays known.

mod names;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::DirEntryExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::base::cgroup_id;
use names::Kind;

/// The most cgroups whose workloads are remembered. A member can make any number of cgroups.
const KNOWN: usize = 1024;

/// The most directories that are read to list members.
const LISTED: usize = 1024;

/// The depth to which members are looked for, in slices within slices.
const DEPTH: usize = 16;

/// Finds the workload of an attempt.
#[derive(Debug, Default)]
pub struct Workloads {
    /// What the fence is attached to, if others have started that: kind and name.
    target: Option<Arc<str>>,
    /// The members, if the place can have several.
    members: Option<Members>,
}

/// The members of a place.
#[derive(Debug)]
struct Members {
    /// The directory of the place; `None` if it could not be opened.
    place: Option<File>,
    name: Option<OsString>,
    known: HashMap<u64, Arc<str>>,
}

impl Workloads {
    /// The workloads of a fence that is attached to what others have started: `target` in words, whose cgroup is the directory
    /// `place`.
    #[must_use]
    pub fn new(target: &str, place: &Path) -> Self {
        let name = place.file_name();
        let above = place.parent().and_then(Path::file_name);
        let is_one = target.starts_with("domain ")
            || name.is_some_and(|name| matches!(names::kind(name, above), Kind::Workload(_)));
        Self {
            target: Some(target.into()),
            members: (!is_one).then(|| Members {
                place: File::open(place).ok(),
                name: name.map(ToOwned::to_owned),
                known: HashMap::new(),
            }),
        }
    }

    /// Whether the place can have several.
    #[must_use]
    pub const fn are_several(&self) -> bool {
        self.members.is_some()
    }

    /// What the fence is attached to.
    #[must_use]
    pub fn target(&self) -> Option<Arc<str>> {
        self.target.clone()
    }

    /// The workload that has the cgroup with this id, or 0 if no process was involved. `None` if the fence is not attached, or
    /// the cgroup was gone before it was looked up.
    #[must_use]
    pub fn of(&mut self, cgroup: u64) -> Option<Arc<str>> {
        let Some(members) = self.members.as_mut().filter(|_| cgroup != 0) else {
            return self.target();
        };
        if let Some(known) = members.known.get(&cgroup) {
            return Some(Arc::clone(known));
        }
        let path = cgroup_id::below(members.place.as_ref()?, cgroup).ok()??;
        let member = match names::member(members.name.as_deref(), &path) {
            Some(member) => member.into(),
            // A process in the place itself.
            None => self.target.clone()?,
        };
        members.learn(cgroup, Arc::clone(&member));
        Some(member)
    }

    /// Lists the members. To be called once per second.
    pub fn look(&mut self) {
        let Some(members) = &mut self.members else {
            return;
        };
        for (id, path) in members.list() {
            if !members.known.contains_key(&id)
                && let Some(words) = names::member(members.name.as_deref(), &path)
            {
                members.learn(id, words.into());
            }
        }
    }
}

impl Members {
    fn learn(&mut self, cgroup: u64, words: Arc<str>) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(cgroup, words);
    }

    /// The cgroups of members: id, and path below the place. Cgroups that a member makes in its own are not listed.
    fn list(&self) -> Vec<(u64, PathBuf)> {
        let mut found = Vec::new();
        let mut groups = vec![(PathBuf::new(), 0)];
        let Some(place) = &self.place else {
            return found;
        };
        let place = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        while let Some((group, depth)) = groups.pop() {
            // A cgroup that was removed meanwhile has no members.
            let entries = fs::read_dir(place.join(&group)).into_iter().flatten();
            let directories = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let above = group.file_name().or(self.name.as_deref());
            let above = above.map(ToOwned::to_owned);
            for entry in directories {
                if found.len() + groups.len() >= LISTED {
                    return found;
                }
                let path = group.join(entry.file_name());
                match names::kind(&entry.file_name(), above.as_deref()) {
                    Kind::Group if depth < DEPTH => groups.push((path, depth + 1)),
                    _ => found.push((entry.ino(), path)),
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_of_its_own_has_no_members() {
        for (target, place) in [
            ("unit web.service", "/c/system.slice/web.service"),
            ("cgroup web.service", "/c/system.slice/web.service"),
            ("domain vm1", "/c/machine.slice/machine-vm1.slice"),
            ("container a (lxc)", "/c/lxc.payload.a"),
        ] {
            let mut workloads = Workloads::new(target, place.as_ref());
            assert_eq!(workloads.of(1).as_deref(), Some(target));
        }
        assert_eq!(Workloads::default().of(1), None);
    }

    #[test]
    fn what_cannot_be_looked_up_is_not_known() {
        for (target, place) in [
            ("unit vms.slice", "/nowhere/vms.slice"),
            ("cgroup a", "/nowhere/a"),
        ] {
            let mut workloads = Workloads::new(target, place.as_ref());
            workloads.look();
            assert_eq!(workloads.of(1), None);
            assert_eq!(workloads.of(0).as_deref(), Some(target));
        }
    }

    #[test]
    fn members_are_listed_below_slices_and_bounded() {
        let place = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(place.path().join(path)).unwrap();
        make("a.slice/a-b.slice/web.service/below");
        make("db.service");
        let mut workloads = Workloads::new("cgroup x", place.path());
        workloads.look();
        let known = |workloads: &Workloads| {
            let members = workloads.members.as_ref().unwrap();
            let mut known: Vec<_> = members.known.values().map(ToString::to_string).collect();
            known.sort();
            known
        };
        assert_eq!(known(&workloads), ["unit db.service", "unit web.service"]);
        for number in 0..2 * LISTED {
            make(&number.to_string());
        }
        for _ in 0..3 {
            workloads.look();
            assert!(known(&workloads).len() <= KNOWN);
        }
    }
}
