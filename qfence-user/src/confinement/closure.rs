//! The closures of `--strict`, and a list of them on the command line.

use std::{collections::BTreeSet, fmt};

use clap::ValueEnum;

/// A group of ways out of a fence that `--strict` closes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Closure {
    /// Unix sockets made outside the fence
    Sockets,
    /// Other processes of the user: tracing, signals, limits, priorities
    Processes,
    /// Files, except public ones for reading and those that the command names
    Files,
    /// System calls that few programs need: other families of sockets, namespaces, mounts, io_uring, keys
    Syscalls,
    /// Local ports, except those that the command names
    Listeners,
    /// Devices, except harmless ones and those that the command names
    Devices,
    /// Groups, environment variables, shared memory, core dumps
    Rights,
}

impl Closure {
    /// All closures, in their order.
    pub const ALL: [Self; 7] = [
        Self::Sockets,
        Self::Processes,
        Self::Files,
        Self::Syscalls,
        Self::Listeners,
        Self::Devices,
        Self::Rights,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Processes => "processes",
            Self::Files => "files",
            Self::Syscalls => "syscalls",
            Self::Listeners => "listeners",
            Self::Devices => "devices",
            Self::Rights => "rights",
        }
    }

    /// The closures without which this one can be bypassed: a name of a socket proves something only if the command can
    /// change neither the directories nor the mounts on the way to it.
    #[must_use]
    pub const fn requires(self) -> &'static [Self] {
        match self {
            Self::Sockets => &[Self::Files, Self::Syscalls],
            _ => &[],
        }
    }
}

impl fmt::Display for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The closures of one command; none without `--strict`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strict(BTreeSet<Closure>);

impl Strict {
    /// These closures, with those that they require.
    #[must_use]
    pub fn of(closures: &[Closure]) -> Self {
        let required = closures.iter().flat_map(|closure| closure.requires());
        Self(closures.iter().chain(required).copied().collect())
    }

    /// Whether a closure is among them.
    #[must_use]
    pub fn has(&self, closure: Closure) -> bool {
        self.0.contains(&closure)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The closures, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Closure> {
        self.0.iter().copied()
    }

    /// The largest part of these closures that works without `lacking`: what `--strict=LIST` can ask for instead.
    #[must_use]
    pub fn without(&self, lacking: &[Closure]) -> Self {
        let works = |closure: &Closure| {
            !lacking.contains(closure)
                && !closure
                    .requires()
                    .iter()
                    .any(|required| lacking.contains(required))
        };
        Self(
            self.0
                .iter()
                .filter(|closure| works(closure))
                .copied()
                .collect(),
        )
    }
}

impl Strict {
    /// What to give instead where `lacking` cannot be closed: the list that works.
    #[must_use]
    pub fn advice(&self, lacking: &[Closure]) -> String {
        let rest = self.without(lacking);
        match rest.is_empty() {
            true => "none of the other closures was asked for".to_owned(),
            false => format!("--strict={rest} works here"),
        }
    }
}

impl fmt::Display for Strict {
    /// As in `--strict=LIST`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, closure) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{closure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for closure in Closure::ALL {
            let value = closure.to_possible_value().unwrap();
            assert_eq!(value.get_name(), closure.name());
        }
        assert_eq!(Closure::ALL.len(), Closure::value_variants().len());
    }

    #[test]
    fn sockets_bring_files_and_syscalls() {
        let strict = Strict::of(&[Closure::Rights, Closure::Sockets]);
        assert_eq!(strict.to_string(), "sockets,files,syscalls,rights");
        assert_eq!(
            strict.without(&[Closure::Files]).to_string(),
            "syscalls,rights"
        );
        assert!(Strict::of(&[]).is_empty());
    }
}
