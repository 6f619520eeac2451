//! Checks whether a fence is still as it was made. Root can remove its links, pins, policy and cgroup.

mod parts;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
pub use parts::Parts;
use qfence_common::Hook;

use crate::{
    base::message_queue::MessageQueue,
    fence::{hierarchy::PARENT, nested::own_cgroup},
    kernel::{Maps, query},
};

/// The reaction to a damaged fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDamage {
    /// Report it
    Report,
    /// Report it, kill all processes in the fence, and exit with 125
    Kill,
}

/// A part of a fence that is missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// A program is not attached to the cgroup.
    Link(&'static str),
    /// A link is not pinned.
    Pin(&'static str),
    /// The policy map is empty.
    Policy,
    /// The cgroup's directory does not exist.
    Cgroup,
    /// The command is in another cgroup.
    Command,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(hook) => write!(
                f,
                "its eBPF program for {hook} is detached: this hook is NOT FENCED"
            ),
            Self::Pin(hook) => write!(
                f,
                "the pin of its link for {hook} was removed: the link lasts only as long as the \
                 supervisor lives"
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

/// The new findings of a look at a fence.
#[derive(Debug, Default)]
struct Found {
    /// The missing parts.
    damage: Vec<Damage>,
    /// Checks that failed, with their reasons. The fence may be whole.
    unknown: Vec<String>,
}

/// The parts of a fence, and the damage that was reported.
pub struct Integrity {
    cgroup: PathBuf,
    pins: PathBuf,
    parts: Parts,
    /// The command, as long as it was not reaped.
    command: Option<Pid>,
    told: BTreeSet<Damage>,
    told_unknown: BTreeSet<String>,
}

impl Integrity {
    /// A whole fence with these parts. Its command, if it has one, must stay in its cgroup.
    #[must_use]
    pub fn new(cgroup: &Path, pins: &Path, parts: Parts, command: Option<Pid>) -> Self {
        Self {
            cgroup: cgroup.to_owned(),
            pins: pins.to_owned(),
            parts,
            command,
            told: BTreeSet::new(),
            told_unknown: BTreeSet::new(),
        }
    }

    /// The command was reaped, so another process can get its number.
    pub fn forget_command(&mut self) {
        self.command = None;
    }

    /// The parts of the fence.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Whether the fence is damaged now, as far as that can be checked.
    #[must_use]
    pub fn is_damaged(&self, maps: &Maps) -> bool {
        !self.damage(maps, &mut BTreeSet::new()).is_empty()
    }

    /// Reports damage since the last call; returns whether there is any.
    pub fn report(
        &mut self,
        maps: &Maps,
        fence: &str,
        on_damage: OnDamage,
        messages: &MessageQueue,
    ) -> bool {
        let found = self.look(maps);
        let what_follows = match on_damage {
            OnDamage::Report => format!("end it with `qfence-user rm {fence}`"),
            OnDamage::Kill => "its processes are killed".into(),
        };
        for damage in &found.damage {
            messages.notify(format_args!(
                "error: the fence {fence} is not whole: {damage}; {what_follows}"
            ));
        }
        for why in &found.unknown {
            messages.notify(format_args!(
                "error: cannot check whether the fence {fence} is whole: {why}; trying again"
            ));
        }
        !found.damage.is_empty()
    }

    /// The damage since the last call.
    fn look(&mut self, maps: &Maps) -> Found {
        let mut unknown = BTreeSet::new();
        let damage = self.damage(maps, &mut unknown);
        let found = Found {
            damage: damage.difference(&self.told).cloned().collect(),
            unknown: unknown.difference(&self.told_unknown).cloned().collect(),
        };
        self.told = damage;
        self.told_unknown = unknown;
        found
    }

    /// The hooks at which the fence's programs are attached to its cgroup now, according to the kernel.
    fn attached(&self, cgroup: &fs::File) -> io::Result<BTreeSet<Hook>> {
        let mut attached = BTreeSet::new();
        for part in &self.parts.0 {
            let found = query::attached(cgroup, part.hook)?;
            if found.programs.contains(&part.program) {
                attached.insert(part.hook);
            }
        }
        Ok(attached)
    }

    fn damage(&self, maps: &Maps, unknown: &mut BTreeSet<String>) -> BTreeSet<Damage> {
        let mut damage = BTreeSet::new();
        let attached = match fs::File::open(&self.cgroup) {
            Ok(cgroup) => self.attached(&cgroup).map_err(|error| {
                format!("cannot query the programs that are attached to its cgroup: {error}")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                damage.insert(Damage::Cgroup);
                Ok(self.parts.hooks().collect())
            }
            Err(error) => Err(format!("its cgroup cannot be opened: {error}")),
        };
        match attached {
            Ok(attached) => {
                let missing = self.parts.hooks().filter(|hook| !attached.contains(hook));
                damage.extend(missing.map(|hook| Damage::Link(hook.name())));
            }
            Err(error) => drop(unknown.insert(error)),
        }
        for hook in self.parts.hooks() {
            match fs::symlink_metadata(self.pins.join(hook.name())) {
                Ok(pin) if self.parts.of(hook).and_then(|part| part.pin) == Some(pin.ino()) => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    unknown.insert(format!("the pins of its links cannot be read: {error}"));
                }
                _ => drop(damage.insert(Damage::Pin(hook.name()))),
            }
        }
        match maps.has_policy() {
            Ok(true) => {}
            Ok(false) => drop(damage.insert(Damage::Policy)),
            Err(error) => drop(unknown.insert(format!("{error:#}"))),
        }
        let membership = |command| fs::read_to_string(format!("/proc/{command}/cgroup")).ok();
        // After the command has ended, there is nothing to read.
        let membership = self.command.and_then(membership);
        if membership.is_some_and(|text| is_outside(&text, &self.cgroup)) {
            damage.insert(Damage::Command);
        }
        damage
    }
}

/// Whether /proc/PID/cgroup is of a process that is neither in the fence's cgroup nor below it. Its path depends on
/// the part of the hierarchy that this process sees, and another cgroup may have the parent's name.
pub(crate) fn is_outside(membership: &str, cgroup: &Path) -> bool {
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
            // In a container of that name, as its host shows it.
            ("0::/docker/qfence/qfence/vm1\n", false),
            ("0::/qfence/outer/qfence/vm1/below\n", false),
            // Of a process that nobody has waited for yet.
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
