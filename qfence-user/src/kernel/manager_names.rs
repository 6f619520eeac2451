//! The names by which the programs recognise the Unix sockets of managers: see [`qfence_common::manager`].

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
};
use qfence_common::{
    abi,
    manager::{self, MAX_NAMES, NAME_BYTES},
};

use super::no_map;

/// The class of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Of a socket: a process of the fence may connect to it, whatever process made it.
    Exempt,
    /// Of a socket: it is refused.
    Denied,
    /// Of a cgroup: the sockets that are made in it are a manager's.
    Unit,
    /// Of a socket that the proof connects to.
    Proof,
}

impl Class {
    fn number(self) -> u32 {
        match self {
            Self::Exempt => manager::EXEMPT,
            Self::Denied => manager::DENIED,
            Self::Unit => manager::UNIT,
            Self::Proof => manager::PROOF,
        }
    }
}

/// Names of sockets and cgroups with their classes. A socket's name is as the kernel has it in `sun_path`: a path without
/// its zero, or an abstract name with its zero at the beginning. The longest name or prefix decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagerNames(BTreeMap<Vec<u8>, Class>);

impl ManagerNames {
    /// Gives one name a class.
    pub fn exactly(&mut self, name: &[u8], class: Class) {
        // Names are padded with zeros. Thus the zero behind a name is the end of it.
        self.under(&[name, &[0]].concat(), class);
    }

    /// Gives all names with this beginning a class.
    pub fn under(&mut self, beginning: &[u8], class: Class) {
        // No socket and no unit has a longer name.
        if beginning.len() <= NAME_BYTES {
            self.0.insert(beginning.to_vec(), class);
        }
    }

    /// The class of a name, as the programs find it.
    #[must_use]
    pub fn class(&self, name: &[u8]) -> Option<Class> {
        let padded = [name, &[0]].concat();
        (0..=padded.len())
            .rev()
            .find_map(|length| self.0.get(&padded[..length]))
            .copied()
    }

    /// The capacity of the map for them.
    pub(super) fn room(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(MAX_NAMES).max(1)
    }

    /// Writes them to the map of programs that are not loaded yet.
    ///
    /// # Errors
    /// If the map does not exist, or the kernel rejects a name.
    pub(super) fn fill(&self, ebpf: &mut Ebpf) -> Result<()> {
        let context = "cannot write the names of managers";
        let map = ebpf
            .map_mut(abi::MANAGER_NAMES_MAP)
            .ok_or_else(|| no_map(abi::MANAGER_NAMES_MAP))?;
        let mut trie = LpmTrie::<_, [u8; NAME_BYTES], u32>::try_from(map).context(context)?;
        for (name, class) in &self.0 {
            let mut data = [0; NAME_BYTES];
            data[..name.len()].copy_from_slice(name);
            let bits = u32::try_from(8 * name.len()).context(context)?;
            trie.insert(&Key::new(bits, data), class.number(), 0)
                .context(context)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_decides_and_a_name_ends_where_it_ends() {
        let mut names = ManagerNames::default();
        names.under(b"/run/systemd/", Class::Denied);
        names.exactly(b"/run/systemd/notify", Class::Exempt);
        names.exactly(b"\0abstract", Class::Proof);
        for (name, class) in [
            (&b"/run/systemd/private"[..], Some(Class::Denied)),
            (b"/run/systemd/notify", Some(Class::Exempt)),
            (b"/run/systemd/notify2", Some(Class::Denied)),
            (b"/run/systemd", None),
            (b"\0abstract", Some(Class::Proof)),
            (b"\0abstract2", None),
            (b"", None),
        ] {
            assert_eq!(names.class(name), class, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_no_socket_can_have_takes_no_room() {
        let mut names = ManagerNames::default();
        names.exactly(&[b'x'; NAME_BYTES], Class::Exempt);
        assert_eq!(names, ManagerNames::default());
        names.under(&[b'x'; NAME_BYTES], Class::Exempt);
        assert_eq!(names.room(), 1);
    }
}
