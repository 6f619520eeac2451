//! Whether this process is in a fence itself. A fence that is made from there stands beside that one, for all are in
//! one place, and what runs in it is not in the outer one any more: whose policy is gone for it, without a word.

use std::{
    fs,
    path::{Component, Path},
};

use anyhow::{Context, Result, bail};
use nix::unistd::getpid;

use crate::{
    base::paths::Paths,
    fence::hierarchy::{Hierarchy, PARENT},
};

/// Where this process is, as far as paths tell.
#[derive(Debug, PartialEq, Eq)]
enum Whereabouts {
    /// In the fence of that name.
    Inside(String),
    /// In none, or in one that a new one would be in as well.
    Outside,
    /// One of the paths begins above what this process is shown.
    Hidden,
}

/// Refuses to go on if this process is in a fence.
///
/// # Errors
/// That it is, or that it cannot be known.
pub fn refuse(paths: &Paths) -> Result<()> {
    let path = paths.proc.join("self/cgroup");
    let context = || format!("cannot read {}", path.display());
    let table = fs::read_to_string(&path).with_context(context)?;
    // Where there is no hierarchy, that is said in its place.
    let Ok(hierarchy) = Hierarchy::find(&paths.mountinfo) else {
        return Ok(());
    };
    let own = own_cgroup(&table).with_context(context)?;
    let name = match locate(Path::new(own), hierarchy.root()) {
        Whereabouts::Outside => return Ok(()),
        Whereabouts::Inside(name) => name,
        Whereabouts::Hidden => match listed_in(&hierarchy)? {
            None => return Ok(()),
            Some(name) => name,
        },
    };
    bail!(
        "this is in the fence {name:?} already, whose policy would not hold for what is started in another one: run \
         qfence outside of it, or start the command as it is"
    );
}

/// The line of cgroup v2 (cgroups(7)), of the table in /proc/PID/cgroup.
pub(crate) fn own_cgroup(table: &str) -> Option<&str> {
    let path = table.lines().find_map(|line| line.strip_prefix("0::"))?;
    // What the kernel adds once it is removed.
    Some(path.strip_suffix(" (deleted)").unwrap_or(path))
}

/// Where `own` is, if fences are made in the cgroup `root`; both as the kernel shows them to this process.
fn locate(own: &Path, root: &Path) -> Whereabouts {
    let [own, root] = [own, root].map(|path| path.components().collect::<Vec<_>>());
    if own.contains(&Component::ParentDir) || root.contains(&Component::ParentDir) {
        return Whereabouts::Hidden;
    }
    let common = own.iter().zip(&root).take_while(|(a, b)| a == b).count();
    // A fence that both are in holds what is made in `root`.
    let below = own.windows(2).skip(common.saturating_sub(1));
    for pair in below {
        if let [parent, Component::Normal(name)] = pair
            && *parent == Component::Normal(PARENT.as_ref())
        {
            return Whereabouts::Inside(name.to_string_lossy().into_owned());
        }
    }
    Whereabouts::Outside
}

/// The fence that lists this process, for where paths say nothing: in a cgroup namespace of its own.
fn listed_in(hierarchy: &Hierarchy) -> Result<Option<String>> {
    if !hierarchy.parent().exists() {
        return Ok(None);
    }
    let context = "cannot tell whether this is in a fence already";
    for name in hierarchy.names().context(context)?.fences {
        let pids = hierarchy.cgroup(&name).pids().context(context)?;
        if pids.contains(&getpid()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_version_2_is_found() {
        assert_eq!(
            own_cgroup("1:name=x:/a\n0::/qfence/vm1\n"),
            Some("/qfence/vm1")
        );
        assert_eq!(
            own_cgroup("0::/qfence/vm1 (deleted)\n"),
            Some("/qfence/vm1")
        );
        assert_eq!(own_cgroup("4:memory:/a\n"), None);
    }

    #[test]
    fn a_fence_is_known_by_where_it_is() {
        let inside = |name: &str| Whereabouts::Inside(name.to_owned());
        for (own, root, expected) in [
            ("/", "/", Whereabouts::Outside),
            ("/user.slice/a.scope", "/", Whereabouts::Outside),
            // The parent of all fences is none.
            ("/qfence", "/", Whereabouts::Outside),
            ("/qfence/vm1", "/", inside("vm1")),
            ("/qfence/vm1/below", "/", inside("vm1")),
            ("/docker/x/qfence/vm1", "/docker/x", inside("vm1")),
            // One of a container's, seen from its host.
            ("/docker/x/qfence/vm1", "/", inside("vm1")),
            // Fences are made in another part of the hierarchy.
            ("/qfence/vm1", "/other", inside("vm1")),
            ("/qfence/vm1", "/qfence", inside("vm1")),
            ("/qfence/vm1", "/qfence/vm2", inside("vm1")),
            ("/", "/other", Whereabouts::Outside),
            // They are made in this very one.
            ("/qfence/vm1", "/qfence/vm1", Whereabouts::Outside),
            ("/qfence/vm1/x", "/qfence/vm1", Whereabouts::Outside),
            ("/qfence/vm1/qfence/vm2", "/qfence/vm1", inside("vm2")),
            // In a cgroup namespace.
            ("/", "/../..", Whereabouts::Hidden),
            ("/../other", "/", Whereabouts::Hidden),
        ] {
            assert_eq!(
                locate(Path::new(own), Path::new(root)),
                expected,
                "{own} {root}"
            );
        }
    }
}
