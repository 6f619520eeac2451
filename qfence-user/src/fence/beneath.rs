//! Where the cgroup of a fence is made: at the top, or beneath a cgroup of others, whose limits and programs then apply
//! to the fence as well.

use std::{
    convert::Infallible,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use qfence_common::Hook;

use super::{
    hierarchy::{Hierarchy, PARENT},
    registry::Fences,
};
use crate::kernel::query::{Sharing, attached};

/// `--cgroup-parent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupParent {
    /// Beneath the unit of systemd that starts the command, where that is possible.
    Auto,
    /// Among all fences.
    Top,
    /// Beneath a cgroup.
    Path(PathBuf),
}

impl FromStr for CgroupParent {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "top" => Self::Top,
            path => Self::Path(path.into()),
        })
    }
}

/// Why no fence can be made beneath a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is the root.
    #[error("it is the root of the cgroups")]
    Root,
    /// It is that of a fence, or has fences alone.
    #[error("it belongs to a fence")]
    Fence,
    /// It is in a cgroup that a fence is attached to.
    #[error(
        "the fence {0:?} is attached to it or above it, and the answers of two fences cannot be told apart"
    )]
    Attached(String),
    /// Others could move processes out of the fence.
    #[error(
        "the cgroup {} is delegated to the user {user}, who could move processes out of the fence", cgroup.display()
    )]
    Delegated {
        /// The cgroup at which they could.
        cgroup: PathBuf,
        /// The user.
        user: u32,
    },
    /// It has threads of processes of other cgroups, and no cgroup with processes can be made beneath it.
    #[error("the cgroup is of the type {0:?} (cgroups(7), \"Thread mode\")")]
    Threaded(String),
    /// A program forbids others beneath it, or would not apply there.
    #[error(
        "a program at {hook} of the cgroup {} is attached without BPF_F_ALLOW_MULTI, as by `ip vrf exec`, and no other can \
         run beside it", cgroup.display()
    )]
    Exclusive {
        /// The hook.
        hook: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
    },
    /// Something cannot be read.
    #[error(transparent)]
    Unknown(#[from] anyhow::Error),
}

/// Checks that a fence can be made beneath the cgroup at a path below the mount, and that only root can move processes
/// out of it.
///
/// # Errors
/// If not.
pub fn check(fences: &Fences, path: &Path) -> Result<(), Unfit> {
    let hierarchy = fences.hierarchy();
    if path.as_os_str().is_empty() {
        return Err(Unfit::Root);
    }
    let is_parent = |part| part == Component::Normal(PARENT.as_ref());
    if path.components().any(is_parent) {
        return Err(Unfit::Fence);
    }
    check_containment(hierarchy, path)?;
    check_type(&hierarchy.mount().join(path))?;
    for (name, place) in fences.attached()? {
        let is_above = place
            .below(hierarchy.mount())
            .is_some_and(|above| path.starts_with(above));
        if is_above && place.exists() {
            return Err(Unfit::Attached(name));
        }
    }
    check_programs(hierarchy, path)
}

/// Checks that only root can move processes from and to the cgroups on the way (cgroups(7), "Delegation containment").
fn check_containment(hierarchy: &Hierarchy, path: &Path) -> Result<(), Unfit> {
    for cgroup in path.ancestors() {
        let directory = hierarchy.mount().join(cgroup);
        for file in [directory.clone(), directory.join("cgroup.procs")] {
            let metadata = fs::metadata(&file)
                .with_context(|| format!("cannot look at {}", file.display()))?;
            if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                return Err(Unfit::Delegated {
                    cgroup: cgroup.to_owned(),
                    user: metadata.uid(),
                });
            }
        }
    }
    Ok(())
}

/// Checks that cgroups with processes can be made beneath a cgroup.
fn check_type(directory: &Path) -> Result<(), Unfit> {
    let file = directory.join("cgroup.type");
    let found =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    match found.trim_end() {
        "domain" => Ok(()),
        other => Err(Unfit::Threaded(other.to_owned())),
    }
}

/// Checks that programs can be attached beneath a cgroup, and that those of the cgroups on the way apply there too
/// (`hierarchy_allows_attach` and `compute_effective_progs` in kernel/bpf/cgroup.c).
fn check_programs(hierarchy: &Hierarchy, path: &Path) -> Result<(), Unfit> {
    for cgroup in path.ancestors() {
        let directory = hierarchy.mount().join(cgroup);
        let context = || format!("cannot query the programs of {}", directory.display());
        let opened = File::open(&directory).with_context(context)?;
        for hook in Hook::ALL {
            let found = match attached(&opened, hook) {
                // This kernel does not have the hook.
                Err(error) if hook.row().is_optional && is_invalid(&error) => continue,
                found => found.with_context(context)?,
            };
            if !found.programs.is_empty() && found.sharing != Sharing::Multi {
                return Err(Unfit::Exclusive {
                    hook: hook.name(),
                    cgroup: cgroup.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EINVAL as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_a_word_or_a_path() {
        for (text, expected) in [
            ("auto", CgroupParent::Auto),
            ("top", CgroupParent::Top),
            ("vms.slice", CgroupParent::Path("vms.slice".into())),
            ("/auto", CgroupParent::Path("/auto".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
    }

    #[test]
    fn only_a_domain_has_cgroups_with_processes() {
        let dir = tempfile::tempdir().unwrap();
        for (found, fits) in [
            ("domain\n", true),
            ("domain threaded\n", false),
            ("domain invalid\n", false),
            ("threaded\n", false),
        ] {
            fs::write(dir.path().join("cgroup.type"), found).unwrap();
            assert_eq!(check_type(dir.path()).is_ok(), fits, "{found}");
        }
    }

    #[test]
    fn whoever_may_move_processes_on_the_way_is_told() {
        use std::os::unix::fs::{PermissionsExt as _, chown};

        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("a.slice/b.service");
        fs::create_dir_all(&unit).unwrap();
        for directory in unit.ancestors().take(3) {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(directory.join("cgroup.procs"), "").unwrap();
        }
        let hierarchy = Hierarchy::at(dir.path().to_owned(), "/".into());
        let path = Path::new("a.slice/b.service");
        // Without root, all files are another user's.
        if chown(&unit, Some(0), Some(0)).is_ok() {
            assert!(check_containment(&hierarchy, path).is_ok());
            let procs = dir.path().join("a.slice/cgroup.procs");
            fs::set_permissions(procs, fs::Permissions::from_mode(0o664)).unwrap();
        }
        let refused = check_containment(&hierarchy, path);
        assert!(
            matches!(refused, Err(Unfit::Delegated { .. })),
            "{refused:?}"
        );
    }
}
