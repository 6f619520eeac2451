//! The names behind addresses, as far as the fence looked them up: the programs know addresses alone.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use jiff::Timestamp;

use crate::base::printable::printable;

/// The names of each address, for the resolver that learns them and the reader that writes them.
#[derive(Clone, Debug, Default)]
pub struct ResolvedNames(Arc<RwLock<Kept>>);

/// Names of one address, those looked up first at the start.
pub type Names = Vec<Arc<str>>;

/// The names of each address.
pub type NamesOfAddresses = BTreeMap<IpAddr, Names>;

#[derive(Debug, Default)]
struct Kept {
    names: NamesOfAddresses,
    /// The addresses that rules by name do not allow any more, and since when.
    ended: BTreeMap<IpAddr, Timestamp>,
    /// What they take, roughly.
    bytes: usize,
    /// The number of changes.
    changes: u64,
    /// How often a name was left out because there was no room.
    left_out: u64,
}

/// The maximum number of names that are kept for one address.
const NAMES: usize = 8;

/// The maximum number of addresses.
const ADDRESSES: usize = 8192;

/// The number of addresses above which those are forgotten that are no more in force: twice as many as can be in force.
const MANY: usize = 4096;

/// The maximum of the bytes of all names, and the bytes above which those of addresses are forgotten that are no more in
/// force. Names of the usual length fit for as many addresses as can be in force.
const BYTES: usize = 1 << 20;
const MUCH: usize = BYTES / 2;

/// What an address and a name take besides the text, roughly.
const OF_ADDRESS: usize = 64;
const OF_NAME: usize = 32;

/// Writes names after an address: ` (github.com)`.
pub(super) fn write_names(f: &mut fmt::Formatter<'_>, names: &[Arc<str>]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(f, " ({})", printable(names.join(", ").as_bytes()))
}

impl ResolvedNames {
    /// Adds a name of some addresses. Of an address with many names, and if there are many addresses or bytes, those that
    /// come later are left out.
    pub fn add(&self, addresses: &[IpAddr], name: &str) {
        if self.read().has(addresses, name) {
            return;
        }
        let name: Arc<str> = name.into();
        let mut kept = self.write();
        for address in addresses {
            kept.add(*address, &name);
        }
    }

    /// The names of an address. An IPv4 address may be v4-mapped.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Names {
        let kept = self.read();
        let names = kept.names.get(&address.to_canonical());
        names.cloned().unwrap_or_default()
    }

    /// Notes that an address of known names is in force.
    pub fn begins(&self, address: IpAddr) {
        if self.read().ended.contains_key(&address) {
            self.write().ended.remove(&address);
        }
    }

    /// Notes that an address is not in force any more, and since when. It is kept as long as its names are.
    pub fn ends(&self, address: IpAddr, at: Timestamp) {
        let mut kept = self.write();
        if kept.names.contains_key(&address) {
            kept.ended.insert(address, at);
        }
    }

    /// Since when an address is not in force, if it was.
    #[must_use]
    pub fn ended(&self, address: IpAddr) -> Option<Timestamp> {
        self.read().ended.get(&address.to_canonical()).copied()
    }

    /// Whether room is short, so that [`Self::make_room`] has a use.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        let kept = self.read();
        kept.names.len() > MANY || kept.bytes > MUCH
    }

    /// Forgets the addresses that are not wanted, if room is short.
    pub fn make_room(&self, is_wanted: impl Fn(IpAddr) -> bool) {
        if !self.is_short_of_room() {
            return;
        }
        let mut kept = self.write();
        let before = kept.names.len();
        kept.names.retain(|address, _| is_wanted(*address));
        kept.ended.retain(|address, _| is_wanted(*address));
        if kept.names.len() != before {
            kept.changes += 1;
            kept.bytes = kept.names.values().map(|names| size(names)).sum();
        }
    }

    /// The number of changes so far. If it is the same as before, so are all names.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.read().changes
    }

    /// How often a name was left out because there was no room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.read().left_out
    }

    /// All of them, and the number of changes by which they are so.
    #[must_use]
    pub fn all(&self) -> (NamesOfAddresses, u64) {
        let kept = self.read();
        (kept.names.clone(), kept.changes)
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn has(&self, addresses: &[IpAddr], name: &str) -> bool {
        addresses.iter().all(|address| {
            let names = self.names.get(address);
            names.is_some_and(|names| names.iter().any(|known| **known == *name))
        })
    }

    fn add(&mut self, address: IpAddr, name: &Arc<str>) {
        if self.has(&[address], name) {
            return;
        }
        let known = self.names.get(&address);
        let is_new = known.is_none();
        let size = name.len() + OF_NAME + if is_new { OF_ADDRESS } else { 0 };
        let has_many = known.is_some_and(|known| known.len() >= NAMES);
        if has_many || self.bytes + size > BYTES || is_new && self.names.len() >= ADDRESSES {
            self.left_out += 1;
            return;
        }
        self.names
            .entry(address)
            .or_default()
            .push(Arc::clone(name));
        self.bytes += size;
        self.changes += 1;
    }
}

/// What an address with these names takes, roughly.
fn size(names: &[Arc<str>]) -> usize {
    OF_ADDRESS + names.iter().map(|name| name.len() + OF_NAME).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn an_address_has_its_names_and_not_too_many() {
        let names = ResolvedNames::default();
        let other = names.clone();
        for name in ["a.example.org", "b.example.org", "a.example.org"] {
            other.add(&[ADDRESS], name);
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        for of in [ADDRESS, mapped] {
            let found: Vec<String> = names.of(of).iter().map(ToString::to_string).collect();
            assert_eq!(found, ["a.example.org", "b.example.org"]);
        }
        assert_eq!((names.changes(), names.left_out()), (2, 0));
        for number in 0..100 {
            names.add(&[ADDRESS], &format!("n{number}.example.org"));
        }
        assert_eq!(names.of(ADDRESS).len(), NAMES);
        assert_eq!(names.left_out(), 102 - NAMES as u64);
        let before = names.changes();
        names.make_room(|_| false);
        assert_eq!(names.of(ADDRESS).len(), NAMES, "there is room");
        assert_eq!(names.changes(), before);
    }

    #[test]
    fn the_end_of_an_address_is_known_as_long_as_its_names() {
        let names = ResolvedNames::default();
        let end = Timestamp::UNIX_EPOCH;
        names.ends(ADDRESS, end);
        assert_eq!(names.ended(ADDRESS), None, "it has no name");
        names.add(&[ADDRESS], "a.example.org");
        assert_eq!(names.ended(ADDRESS), None);
        names.ends(ADDRESS, end);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        for of in [ADDRESS, mapped] {
            assert_eq!(names.ended(of), Some(end));
        }
        names.begins(ADDRESS);
        assert_eq!(names.ended(ADDRESS), None);
        names.ends(ADDRESS, end);
        for number in 0..20_000_u32 {
            names.add(&[IpAddr::from(number.to_be_bytes())], "a.example.org");
        }
        names.make_room(|_| false);
        assert_eq!(names.ended(ADDRESS), None, "it is forgotten");
    }

    #[test]
    fn addresses_are_bounded_and_those_in_force_are_kept() {
        let names = ResolvedNames::default();
        for number in 0..20_000_u32 {
            names.add(&[IpAddr::from(number.to_be_bytes())], "a.example.org");
        }
        assert_eq!(names.all().0.len(), ADDRESSES);
        assert_eq!(names.left_out(), 20_000 - ADDRESSES as u64);
        let kept = IpAddr::from([0, 0, 0, 7]);
        let before = names.changes();
        names.make_room(|address| address == kept);
        let (all, changes) = names.all();
        assert_eq!(all.into_keys().collect::<Vec<_>>(), [kept]);
        assert_ne!(changes, before);
        assert!(!names.is_short_of_room());
    }

    #[test]
    fn bytes_are_bounded_and_counted_back() {
        let names = ResolvedNames::default();
        let long = |number: u32| format!("{number}.{}org", "abcdefghi.".repeat(24));
        for number in 0..8000_u32 {
            let address = IpAddr::from((number / 8).to_be_bytes());
            names.add(&[address], &long(number));
        }
        let sizes = |names: &ResolvedNames| -> usize {
            names.all().0.values().map(|names| size(names)).sum()
        };
        assert!(sizes(&names) <= BYTES && sizes(&names) > BYTES - 1024);
        assert_eq!(names.0.read().unwrap().bytes, sizes(&names));
        assert!(names.is_short_of_room() && names.left_out() > 0);
        names.make_room(|_| false);
        assert_eq!(names.0.read().unwrap().bytes, 0);
        names.add(&[ADDRESS], "a.example.org");
        assert_eq!(names.of(ADDRESS).len(), 1, "there is room again");
    }
}
