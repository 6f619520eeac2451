//! The cgroup2 hierarchy: its mount point, mode, owners and controllers.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::finding::Finding;
use crate::{
    base::mounts::{self, Mount},
    fence::{
        cgroup::directories_in,
        hierarchy::{FindError, Hierarchy, NoHierarchy},
    },
};

const MOUNT: &str = "cgroup2";
const CONTAINMENT: &str = "cgroup containment";
const DELEGATED: &str = "delegated subtrees";
const LIMITS: &str = "resource limits";

/// The controllers that the resource limits need, each with its option.
const CONTROLLERS: [(&str, &str); 3] = [
    ("memory", "--memory-max"),
    ("cpu", "--cpu-max"),
    ("pids", "--pids-max"),
];

/// The maximum depth of delegated subtrees. `user.slice/user-1000.slice/user@1000.service` has depth three.
const DEPTH: usize = 4;

/// Finds the hierarchy and judges it.
///
/// # Errors
/// If the mount table cannot be read.
pub fn examine(mountinfo: &Path) -> anyhow::Result<(Option<Hierarchy>, Vec<Finding>)> {
    let hierarchy = match Hierarchy::find(mountinfo) {
        Ok(hierarchy) => hierarchy,
        Err(FindError::None(none)) => return Ok((None, vec![judge_none(&none)])),
        Err(error) => return Err(error.into()),
    };
    let mounts = mounts::read(mountinfo)?;
    let findings = vec![
        judge_mode(hierarchy.mount(), &mounts),
        judge_containment(&hierarchy),
        judge_delegated(hierarchy.mount(), delegated(hierarchy.mount())),
        judge_controllers(
            fs::read_to_string(hierarchy.mount().join("cgroup.controllers"))
                .as_deref()
                .unwrap_or_default(),
        ),
    ];
    Ok((Some(hierarchy), findings))
}

fn judge_none(none: &NoHierarchy) -> Finding {
    Finding::missing(MOUNT, none.finding(), none.fix())
}

fn judge_mode(point: &Path, mounts: &[Mount]) -> Finding {
    let hybrid = mounts.iter().any(|mount| mount.fs_type == "cgroup");
    let whole = mounts.iter().any(|mount| {
        mount.fs_type == "cgroup2" && mount.point == point && mount.root == Path::new("/")
    });
    let mode = if hybrid {
        "hybrid, beside v1"
    } else {
        "pure v2"
    };
    let part = if whole {
        ""
    } else {
        "; only a part of the hierarchy, whose root is not visible here"
    };
    Finding::ok(MOUNT, format!("{mode}, at {}{part}", point.display()))
}

fn judge_containment(hierarchy: &Hierarchy) -> Finding {
    match hierarchy.check_containment() {
        Ok(()) => Finding::ok(
            CONTAINMENT,
            format!(
                "only root can write to {} and the cgroups above it",
                hierarchy.parent().display()
            ),
        ),
        Err(error) => Finding::missing(
            CONTAINMENT,
            format!("{error:#}"),
            "return these to root (`chown root`, `chmod go-w`), or run qfence where cgroup2 is \
             not delegated; if this is a container, outside of it",
        ),
    }
}

/// The topmost cgroups that do not belong to root, with their owners.
fn delegated(mount: &Path) -> io::Result<Vec<(PathBuf, u32)>> {
    let mut found = Vec::new();
    let mut level = vec![mount.to_owned()];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for directory in level {
            // A cgroup that is gone, or that only root can read, is skipped.
            for below in directories_in(&directory).unwrap_or_default() {
                match fs::metadata(&below).map(|metadata| metadata.uid()) {
                    Ok(0) => next.push(below),
                    Ok(uid) => found.push((below, uid)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        level = next;
    }
    Ok(found)
}

/// Judges delegated subtrees. A process can move within a subtree that belongs to its user, but not from a fence into
/// that subtree: this needs write access to `cgroup.procs` of the common ancestor (cgroups(7)), which belongs to root.
fn judge_delegated(mount: &Path, delegated: io::Result<Vec<(PathBuf, u32)>>) -> Finding {
    match delegated {
        Err(error) => Finding::degraded(
            DELEGATED,
            format!("unknown: {error}"),
            format!("check the owners of the cgroups in {}", mount.display()),
        ),
        Ok(all) if all.is_empty() => Finding::ok(DELEGATED, "none"),
        Ok(all) => {
            let mut list: Vec<String> = all
                .iter()
                .take(3)
                .map(|(path, uid)| {
                    let path = path.strip_prefix(mount).unwrap_or(path);
                    format!("{} (user id {uid})", path.display())
                })
                .collect();
            if all.len() > list.len() {
                list.push(format!("{} more", all.len() - list.len()));
            }
            Finding::ok(
                DELEGATED,
                format!("{}; fences are outside of them", list.join(", ")),
            )
        }
    }
}

fn judge_controllers(available: &str) -> Finding {
    let lacking: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|(controller, _)| !available.split_whitespace().any(|name| name == *controller))
        .map(|(_, option)| option)
        .collect();
    if lacking.is_empty() {
        return Finding::ok(LIMITS, "the controllers memory, cpu and pids are available");
    }
    Finding::degraded(
        LIMITS,
        format!("{} cannot be enforced", lacking.join(", ")),
        "if you need them, boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1): the \
         controllers are in cgroup v1, or missing",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    fn mount(fs_type: &str, point: &str, root: &str) -> Mount {
        Mount {
            root: root.into(),
            point: point.into(),
            fs_type: fs_type.into(),
        }
    }

    #[test]
    fn the_mode_is_told() {
        let point = Path::new("/sys/fs/cgroup");
        let whole = mount("cgroup2", "/sys/fs/cgroup", "/");
        let v1 = mount("cgroup", "/sys/fs/cgroup/memory", "/");
        let part = mount("cgroup2", "/sys/fs/cgroup", "/machine.slice");
        let found = |mounts: &[Mount]| judge_mode(point, mounts).found;
        assert_eq!(
            found(std::slice::from_ref(&whole)),
            "pure v2, at /sys/fs/cgroup"
        );
        assert_eq!(found(&[v1, whole]), "hybrid, beside v1, at /sys/fs/cgroup");
        assert!(found(&[part]).contains("a part of the hierarchy"));
    }

    #[test]
    fn a_host_without_it_is_missing_it_and_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mountinfo = dir.path().join("mountinfo");
        let v1 = "26 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for (table, found) in [(v1, "only cgroup v1"), ("", "no cgroup2 file system")] {
            fs::write(&mountinfo, table).unwrap();
            let (hierarchy, findings) = examine(&mountinfo).unwrap();
            assert!(hierarchy.is_none());
            assert_eq!(findings[0].state, State::Missing);
            assert!(findings[0].found.starts_with(found), "{findings:?}");
            assert!(
                findings[0]
                    .fix
                    .as_ref()
                    .unwrap()
                    .contains("mount -t cgroup2")
            );
        }
        assert!(examine(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_limit_needs_its_controller() {
        assert_eq!(
            judge_controllers("cpuset cpu io memory pids").state,
            State::Ok
        );
        let finding = judge_controllers("cpuset cpu");
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.found.starts_with("--memory-max, --pids-max cannot"));
    }

    #[test]
    fn delegated_ones_are_listed_and_no_fault() {
        let root = Path::new("/cg");
        assert_eq!(judge_delegated(root, Ok(Vec::new())).found, "none");
        let many = (1..6).map(|n| (root.join(format!("u{n}")), 1000 + n));
        let finding = judge_delegated(root, Ok(many.collect()));
        assert_eq!(finding.state, State::Ok);
        assert!(
            finding.found.starts_with("u1 (user id 1001), u2"),
            "{finding:?}"
        );
        assert!(finding.found.contains("2 more"), "{finding:?}");
        let unknown = judge_delegated(root, Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(unknown.state, State::Degraded);
    }

    #[test]
    fn the_owner_of_a_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("a/b");
        fs::create_dir_all(theirs.join("c")).unwrap();
        // Needs root, like the end-to-end tests. Without root, every cgroup belongs to another user.
        if std::os::unix::fs::chown(&theirs, Some(1234), None).is_ok() {
            assert_eq!(delegated(dir.path()).unwrap(), [(theirs, 1234)]);
        } else {
            assert_eq!(delegated(dir.path()).unwrap().len(), 1);
        }
    }
}
