//! Refuses to start a fence from within a fence. The new fence would be beside the outer one, since fences are made at
//! the top or beneath a unit. Its processes would leave the outer fence, whose policy would silently stop to apply.

use std::{
    fs,
    path::{Component, Path},
};

use anyhow::{Context, Result, bail};
use nix::unistd::getpid;

use crate::{
    base::paths::Paths,
    fence::{
        hierarchy::{Hierarchy, PARENT},
        registry::Fences,
    },
};

/// Where this process is, as far as paths show.
#[derive(Debug, PartialEq, Eq)]
enum Whereabouts {
    /// In the fence of this name.
    Inside(String),
    /// In none, or in one that a new fence would be in as well.
    Outside,
    /// A path begins above the part of the tree that this process sees.
    Hidden,
}

/// Fails if this process is in a fence.
///
/// # Errors
/// If it is, or if that cannot be found out.
pub fn refuse(paths: &Paths) -> Result<()> {
    let path = paths.proc.join("self/cgroup");
    let context = || format!("cannot read {}", path.display());
    let table = fs::read_to_string(&path).with_context(context)?;
    // A later step reports a missing hierarchy.
    let Ok(hierarchy) = Hierarchy::find(&paths.mountinfo) else {
        return Ok(());
    };
    let own = own_cgroup(&table).with_context(context)?;
    let fences = Fences::look(paths)?;
    refuse_attached(&fences, hierarchy.root(), Path::new(own))?;
    let name = match locate(Path::new(own), hierarchy.root()) {
        Whereabouts::Outside => return Ok(()),
        Whereabouts::Inside(name) => name,
        Whereabouts::Hidden => match listed_in(&fences)? {
            None => return Ok(()),
            Some(name) => name,
        },
    };
    bail!(
        "this process is in the fence {name:?} already, whose policy would not apply to a command in another fence: run \
         qfence outside of it, or start the command without qfence"
    );
}

/// Fails if a fence is attached to the cgroup of this process, or to one above it: the command would leave that.
fn refuse_attached(fences: &Fences, root: &Path, own: &Path) -> Result<()> {
    let attached = fences.attached();
    let attached =
        attached.context("cannot find out whether this process is in a fence already")?;
    for (name, place) in attached {
        let path = place.below(fences.hierarchy().mount());
        let is_in_it = path.is_some_and(|path| is_at_or_below(own, root, path));
        if (is_in_it || place.pids()?.contains(&getpid())) && place.exists() {
            bail!(
                "this process is in the cgroup that the fence {name:?} is attached to, whose policy would not apply to a \
                 command in another fence: run qfence outside of it"
            );
        }
    }
    Ok(())
}

/// Whether the cgroup `own`, as the kernel shows it to this process, is at a path below the mounted cgroup `root`, or below
/// that.
fn is_at_or_below(own: &Path, root: &Path, path: &Path) -> bool {
    own.starts_with(root.join(path))
}

/// The line of cgroup v2 (cgroups(7)) in the table of /proc/PID/cgroup.
pub(crate) fn own_cgroup(table: &str) -> Option<&str> {
    let path = table.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The kernel adds this after a removal.
    Some(path.strip_suffix(" (deleted)").unwrap_or(path))
}

/// Where `own` is, if fences are made in the cgroup `root`. Both are as the kernel shows them to this process.
fn locate(own: &Path, root: &Path) -> Whereabouts {
    let [own, root] = [own, root].map(|path| path.components().collect::<Vec<_>>());
    if own.contains(&Component::ParentDir) || root.contains(&Component::ParentDir) {
        return Whereabouts::Hidden;
    }
    let common = own.iter().zip(&root).take_while(|(a, b)| a == b).count();
    // A fence that contains both also contains fences made in `root`.
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

/// The fence that lists this process, if paths show nothing: in a cgroup namespace.
fn listed_in(fences: &Fences) -> Result<Option<String>> {
    let hierarchy = fences.hierarchy();
    let context = "cannot find out whether this process is in a fence already";
    for name in hierarchy.names().context(context)?.fences {
        let pids = hierarchy.cgroup(&name).pids().context(context)?;
        if pids.contains(&getpid()) {
            return Ok(Some(name));
        }
    }
    for (name, place) in fences.apart().context(context)? {
        if place.pids().context(context)?.contains(&getpid()) {
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
            // The parent of all fences is no fence.
            ("/qfence", "/", Whereabouts::Outside),
            ("/qfence/vm1", "/", inside("vm1")),
            ("/qfence/vm1/below", "/", inside("vm1")),
            ("/docker/x/qfence/vm1", "/docker/x", inside("vm1")),
            // A fence of a container, seen from its host.
            ("/docker/x/qfence/vm1", "/", inside("vm1")),
            // Fences are made in another part of the hierarchy.
            ("/qfence/vm1", "/other", inside("vm1")),
            ("/qfence/vm1", "/qfence", inside("vm1")),
            ("/qfence/vm1", "/qfence/vm2", inside("vm1")),
            ("/", "/other", Whereabouts::Outside),
            // Fences are made in this very cgroup.
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
