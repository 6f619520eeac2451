//! Names of sockets that the command could make lead to other sockets, because it can change something on the way to them.

use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::confinement::{Grants, UnixName};

/// The most symbolic links that the kernel follows for one path (`MAXSYMLINKS`, linux/namei.h).
const MOST_LINKS: usize = 40;

/// Refuses an allowed name that the command could make lead to another socket.
///
/// # Errors
/// If there is one.
pub(super) fn refuse(grants: &Grants) -> Result<()> {
    for name in &grants.connect {
        let UnixName::Path(path) = name else { continue };
        let Some(directory) = changed(grants).find(|each| leads_through(path, each)) else {
            continue;
        };
        let reason = match grants.make.contains(directory) {
            true => "make and remove sockets in",
            false => "change",
        };
        bail!(
            "--allow-unix {}: the command can {reason} {}, so it could make this name lead to any other socket; use a socket \
             outside of it, or do not grant the directory",
            path.display(),
            directory.display()
        );
    }
    Ok(())
}

/// The directory in which names of sockets that the command makes are allowed: that for temporary files, which has no
/// symbolic links. Not if it is below a directory that the command can change, where it can make some.
pub(super) fn own(grants: &Grants, temporary: Option<&Path>) -> BTreeSet<PathBuf> {
    let directory = temporary.and_then(|path| path.canonicalize().ok());
    let is_changed = |path: &PathBuf| {
        grants
            .write
            .iter()
            .any(|granted| leads_through(path, granted))
    };
    let own = directory.filter(|path| !is_changed(path));
    own.into_iter().collect()
}

/// The directories in which the command can replace files.
fn changed(grants: &Grants) -> impl Iterator<Item = &PathBuf> {
    grants.write.iter().chain(&grants.make)
}

/// Whether the way along a path leads through a directory, or ends there. Directories are compared by their inodes: a bind
/// mount has several paths.
fn leads_through(path: &Path, directory: &Path) -> bool {
    let granted = fs::metadata(directory).ok();
    let is_granted = |place: &PathBuf| {
        // What does not exist yet has no inode.
        place == directory
            || granted.as_ref().is_some_and(|granted| {
                fs::metadata(place).is_ok_and(|found| is_one(&found, granted))
            })
    };
    way(path).iter().any(is_granted)
}

fn is_one(first: &Metadata, second: &Metadata) -> bool {
    (first.dev(), first.ino()) == (second.dev(), second.ino())
}

/// The places on the way along a path, as far as it exists: each directory, the symbolic links, their targets, and the end.
fn way(path: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    // The parts that are still to be walked, the next one last.
    let mut rest: Vec<PathBuf> = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        places.push(next.clone());
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(parts(&target));
            }
            _ => at = next,
        }
    }
    places
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<_> = names.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn grants(connect: &Path, write: &Path, make: Option<&Path>) -> Grants {
        Grants {
            connect: BTreeSet::from([UnixName::parse(connect.as_os_str().to_owned()).unwrap()]),
            write: BTreeSet::from([write.to_owned()]),
            make: make.into_iter().map(Path::to_owned).collect(),
            ..Grants::default()
        }
    }

    #[test]
    fn a_name_that_the_command_can_redirect_is_refused() {
        let (x, y) = (Path::new("/home/a/x"), Path::new("/home/a/y"));
        assert!(refuse(&grants(&x.join("s"), x, None)).is_err());
        assert!(refuse(&grants(&x.join("s"), y, None)).is_ok());
        // A server socket in the same directory: rename(2) would put it in place of the other.
        assert!(refuse(&grants(&x.join("s"), y, Some(x))).is_err());
        let abstract_name = grants(Path::new("@name"), x, None);
        assert!(refuse(&abstract_name).is_ok());
    }

    #[test]
    fn each_link_on_the_way_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let [work, sockets] = ["work", "sockets"].map(|name| dir.path().join(name));
        fs::create_dir(&work).unwrap();
        fs::create_dir(&sockets).unwrap();
        fs::write(sockets.join("allowed"), "").unwrap();
        symlink("../sockets/allowed", work.join("second")).unwrap();
        symlink(work.join("second"), dir.path().join("first")).unwrap();
        let first = dir.path().join("first");
        assert!(refuse(&grants(&first, &work, None)).is_err());
        assert!(refuse(&grants(&first, &sockets, None)).is_err());
        assert!(refuse(&grants(&sockets.join("allowed"), &work, None)).is_ok());
        // A loop ends.
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(way(&dir.path().join("a/x")).len() > MOST_LINKS);
    }

    #[test]
    fn temporary_files_are_the_commands_own_unless_it_can_change_the_way_to_them() {
        let granted = |write: &str| grants(Path::new("@name"), Path::new(write), None);
        let usr = Some(Path::new("/usr/bin"));
        assert_eq!(
            own(&granted("/home/a/x"), usr),
            BTreeSet::from([fs::canonicalize("/usr/bin").unwrap()])
        );
        assert!(own(&granted("/usr"), usr).is_empty());
        // Another spelling of the same directory.
        assert!(own(&granted("/proc/self/root/usr"), usr).is_empty());
        assert!(own(&granted("/home/a/x"), None).is_empty());
    }
}
