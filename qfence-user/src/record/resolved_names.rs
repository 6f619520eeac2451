//! The names behind addresses, as far as the fence looked them up: the programs know addresses alone.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use crate::base::printable::printable;

/// The names of each address, for the resolver that learns them and the reader that writes them.
#[derive(Clone, Debug, Default)]
pub struct ResolvedNames(Arc<RwLock<BTreeMap<IpAddr, Names>>>);

/// Names of one address, those looked up first at the start.
pub type Names = Vec<Arc<str>>;

/// The maximum number of names that are kept for one address.
const NAMES: usize = 8;

/// The maximum number of addresses.
const ADDRESSES: usize = 8192;

/// The number of addresses above which those are forgotten that are no more in force: twice as many as can be in force.
const MANY: usize = 4096;

/// Writes names after an address: ` (github.com)`.
pub(super) fn write_names(f: &mut fmt::Formatter<'_>, names: &[Arc<str>]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(f, " ({})", printable(names.join(", ").as_bytes()))
}

impl ResolvedNames {
    /// Adds a name of an address. Of an address with many names, and if there are many addresses, those that come later are
    /// left out.
    pub fn add(&self, address: IpAddr, name: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ADDRESSES && !all.contains_key(&address) {
            return;
        }
        let names = all.entry(address).or_default();
        if names.len() < NAMES && !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }

    /// The names of an address. An IPv4 address may be v4-mapped.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Names {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let names = all.get(&address.to_canonical());
        names.cloned().unwrap_or_default()
    }

    /// Forgets the addresses that are not wanted, if there are so many that room is short.
    pub fn make_room(&self, is_wanted: impl Fn(IpAddr) -> bool) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() > MANY {
            all.retain(|address, _| is_wanted(*address));
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<IpAddr, Names> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_names_and_not_too_many() {
        let (names, address) = (ResolvedNames::default(), IpAddr::from([192, 0, 2, 1]));
        let other = names.clone();
        for name in ["a.example.org", "b.example.org", "a.example.org"] {
            other.add(address, name);
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        for of in [address, mapped] {
            let found: Vec<String> = names.of(of).iter().map(ToString::to_string).collect();
            assert_eq!(found, ["a.example.org", "b.example.org"]);
        }
        for number in 0..100 {
            names.add(address, &format!("n{number}.example.org"));
        }
        assert_eq!(names.of(address).len(), NAMES);
        names.make_room(|_| false);
        assert_eq!(names.of(address).len(), NAMES, "there is room");
        for number in 0..20_000_u32 {
            names.add(IpAddr::from(number.to_be_bytes()), "a.example.org");
        }
        assert_eq!(names.all().len(), ADDRESSES);
        let kept = IpAddr::from([0, 0, 0, 7]);
        names.make_room(|address| address == kept);
        assert_eq!(names.all().into_keys().collect::<Vec<_>>(), [kept]);
    }
}
