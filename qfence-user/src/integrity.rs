//! Whether a fence is still as it was made: its links, pins, policy and cgroup can be taken away by
//! whoever is root.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use qfence_common::Hook;

use crate::kernel::Kernel;

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

/// What a fence was made of, and what is known to be gone of it.
pub struct Integrity {
    cgroup: PathBuf,
    pins: PathBuf,
    command: Pid,
    told: BTreeSet<Damage>,
}

impl Integrity {
    /// A whole fence.
    #[must_use]
    pub fn new(cgroup: &Path, pins: &Path, command: Pid) -> Self {
        Self {
            cgroup: cgroup.to_owned(),
            pins: pins.to_owned(),
            command,
            told: BTreeSet::new(),
        }
    }

    /// What has gone since this was last asked.
    pub fn new_damage(&mut self, kernel: &mut Kernel) -> Vec<Damage> {
        let found = self.damage(kernel);
        let new = found.difference(&self.told).cloned().collect();
        self.told = found;
        new
    }

    fn damage(&self, kernel: &mut Kernel) -> BTreeSet<Damage> {
        let mut damage = BTreeSet::new();
        let attached = match fs::File::open(&self.cgroup) {
            Ok(cgroup) => kernel.attached(&cgroup),
            Err(_) => {
                damage.insert(Damage::Cgroup);
                Hook::ALL.into()
            }
        };
        for hook in Hook::ALL {
            if !attached.contains(&hook) {
                damage.insert(Damage::Link(hook.name()));
            }
            if !self.pins.join(hook.name()).exists() {
                damage.insert(Damage::Pin(hook.name()));
            }
        }
        if !kernel
            .maps()
            .in_force()
            .is_ok_and(|policy| policy.is_whole())
        {
            damage.insert(Damage::Policy);
        }
        let membership = fs::read_to_string(format!("/proc/{}/cgroup", self.command));
        // Once the command has ended, there is nothing to be read.
        if membership.is_ok_and(|text| is_outside(&text, &self.cgroup)) {
            damage.insert(Damage::Command);
        }
        damage
    }
}

/// Whether /proc/PID/cgroup is of a process that is neither in the fence's cgroup nor in one below it.
fn is_outside(membership: &str, cgroup: &Path) -> bool {
    let Some(name) = cgroup.file_name() else {
        return true;
    };
    let Some(path) = membership.lines().find_map(|line| line.strip_prefix("0::")) else {
        return true;
    };
    let mut components = Path::new(path).iter().skip_while(|part| *part != "qfence");
    components.nth(1) != Some(name)
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
