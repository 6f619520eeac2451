//! Whether a fence is still as it was made: its links, pins, policy and cgroup can be taken away by
//! whoever is root.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use qfence_common::Hook;

use crate::{hierarchy::PARENT, kernel::Kernel, nested::own_cgroup};

/// What is done when a fence is not whole any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDamage {
    /// Say so
    Report,
    /// Say so, end what runs in the fence, and exit with 125
    Kill,
}

/// Something that a fence is made of, and that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// A program is not attached to the cgroup.
    Link(&'static str),
    /// A link is not pinned.
    Pin(&'static str),
    /// The policy map has no policy.
    Policy,
    /// The cgroup's directory is not there.
    Cgroup,
    /// The command is in another cgroup.
    Command,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(hook) => write!(
                f,
                "its eBPF program for {hook} is detached: what that held is NOT FENCED"
            ),
            Self::Pin(hook) => write!(
                f,
                "the pin of its link for {hook} was removed: it holds only as long as this \
                 process lives"
            ),
            Self::Policy => write!(f, "its policy was removed: everything is refused"),
            Self::Cgroup => write!(f, "its cgroup was removed: nothing is fenced any more"),
            Self::Command => write!(
                f,
                "the command has left its cgroup: the sockets that it makes are NOT FENCED"
            ),
        }
    }
}

/// What a look at a fence has found that was not known before.
#[derive(Debug, Default)]
pub struct Found {
    /// What is gone.
    pub damage: Vec<Damage>,
    /// What could not be looked at, and why. It may be whole.
    pub unknown: Vec<String>,
}

/// What a fence was made of, and what is known to be gone of it.
pub struct Integrity {
    cgroup: PathBuf,
    pins: PathBuf,
    /// The inode of each link's pin: another object under its name is not its pin.
    inodes: BTreeMap<Hook, u64>,
    command: Pid,
    told: BTreeSet<Damage>,
    told_unknown: BTreeSet<String>,
}

impl Integrity {
    /// A whole fence.
    #[must_use]
    pub fn new(cgroup: &Path, pins: &Path, command: Pid) -> Self {
        let inode = |hook: Hook| {
            Some((
                hook,
                fs::symlink_metadata(pins.join(hook.name())).ok()?.ino(),
            ))
        };
        Self {
            cgroup: cgroup.to_owned(),
            pins: pins.to_owned(),
            inodes: Hook::ALL.into_iter().filter_map(inode).collect(),
            command,
            told: BTreeSet::new(),
            told_unknown: BTreeSet::new(),
        }
    }

    /// What has gone since this was last asked.
    pub fn look(&mut self, kernel: &mut Kernel) -> Found {
        let mut unknown = BTreeSet::new();
        let damage = self.damage(kernel, &mut unknown);
        let found = Found {
            damage: damage.difference(&self.told).cloned().collect(),
            unknown: unknown.difference(&self.told_unknown).cloned().collect(),
        };
        self.told = damage;
        self.told_unknown = unknown;
        found
    }

    fn damage(&self, kernel: &mut Kernel, unknown: &mut BTreeSet<String>) -> BTreeSet<Damage> {
        let mut damage = BTreeSet::new();
        let attached = match fs::File::open(&self.cgroup) {
            Ok(cgroup) => kernel.attached(&cgroup).map_err(|error| {
                format!("the kernel does not tell what is attached to its cgroup: {error}")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                damage.insert(Damage::Cgroup);
                Ok(Hook::ALL.into())
            }
            Err(error) => Err(format!("its cgroup cannot be opened: {error}")),
        };
        match attached {
            Ok(attached) => {
                let missing = Hook::ALL
                    .into_iter()
                    .filter(|hook| !attached.contains(hook));
                damage.extend(missing.map(|hook| Damage::Link(hook.name())));
            }
            Err(error) => drop(unknown.insert(error)),
        }
        for hook in Hook::ALL {
            match fs::symlink_metadata(self.pins.join(hook.name())) {
                Ok(pin) if self.inodes.get(&hook) == Some(&pin.ino()) => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    unknown.insert(format!(
                        "the pins of its links cannot be looked at: {error}"
                    ));
                }
                _ => drop(damage.insert(Damage::Pin(hook.name()))),
            }
        }
        match kernel.maps().has_policy() {
            Ok(true) => {}
            Ok(false) => drop(damage.insert(Damage::Policy)),
            Err(error) => drop(unknown.insert(format!("{error:#}"))),
        }
        let membership = fs::read_to_string(format!("/proc/{}/cgroup", self.command));
        // Once the command has ended, there is nothing to be read.
        if membership.is_ok_and(|text| is_outside(&text, &self.cgroup)) {
            damage.insert(Damage::Command);
        }
        damage
    }
}

/// Whether /proc/PID/cgroup is of a process that is neither in the fence's cgroup nor in one below it. Where that is in
/// the hierarchy depends on which part of it this process is shown, and another cgroup may have the parent's name.
fn is_outside(membership: &str, cgroup: &Path) -> bool {
    let Some(name) = cgroup.file_name() else {
        return true;
    };
    let Some(path) = own_cgroup(membership) else {
        return true;
    };
    let parts: Vec<_> = Path::new(path).iter().collect();
    !parts.windows(2).any(|pair| pair == [PARENT.as_ref(), name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_inside_in_the_cgroup_and_below_it() {
        let fence = Path::new("/sys/fs/cgroup/qfence/vm1");
        for (membership, outside) in [
            ("0::/qfence/vm1\n", false),
            ("12:cpu:/\n0::/qfence/vm1/below\n", false),
            ("0::/machine/qfence/vm1\n", false),
            // A container of that name, as its host shows it.
            ("0::/docker/qfence/qfence/vm1\n", false),
            ("0::/qfence/outer/qfence/vm1/below\n", false),
            // Of a process that was not waited for yet.
            ("0::/qfence/vm1 (deleted)\n", false),
            ("0::/qfence/qfence/vm2\n", true),
            ("0::/qfence/vm2\n", true),
            ("0::/qfence/vm12\n", true),
            ("0::/\n", true),
            ("0::/vm1\n", true),
            ("12:cpu:/qfence/vm1\n", true),
        ] {
            assert_eq!(is_outside(membership, fence), outside, "{membership}");
        }
    }
}
