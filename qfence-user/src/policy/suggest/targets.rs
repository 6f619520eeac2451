//! What was seen, as the matches of rules: by name where the fence looked the address up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use qfence_common::{Protocol, Sighting};

use crate::policy::{
    domain::{DomainName, DomainPattern},
    guard::Guard,
    hostset::single,
    ports::Ports,
    protocol::{Proto, WITH_PORTS},
    rule::{Destination, Match},
    set::SetName,
};

/// What the resolver of a fence found.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The names that the fence looked up, by address.
    pub names: &'a BTreeMap<IpAddr, Vec<String>>,
    /// The addresses that no name opens.
    pub guard: Guard,
}

/// Items with the number of times that each was seen.
type Counted<T> = Vec<(T, u64)>;

/// What one rule is to allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The matches: one, or one for each name of an address.
    pub(super) matches: Vec<Match>,
    /// How often it was seen.
    pub(super) count: u64,
    /// What there is to say of it.
    pub(super) remarks: Vec<String>,
}

/// An address, or the names by which the fence found it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Address(IpAddr),
    Names(Vec<DomainName>),
}

impl Found<'_> {
    /// The names of an address that a rule can have.
    fn names(&self, address: IpAddr) -> Vec<DomainName> {
        let names = self.names.get(&address).into_iter().flatten();
        let names: BTreeSet<DomainName> = names.filter_map(|name| name.parse().ok()).collect();
        names.into_iter().collect()
    }

    /// The names that were looked up and are in none of the targets, with a remark if no name may lead to one of their
    /// addresses.
    pub(super) fn only_looked_up(&self, targets: &[Target]) -> Vec<String> {
        let matches = targets.iter().flat_map(|target| &target.matches);
        let suggested: BTreeSet<_> = matches
            .filter_map(|of| of.pattern())
            .map(|pattern| &pattern.name)
            .collect();
        let mut others: BTreeMap<DomainName, Option<String>> = BTreeMap::new();
        for address in self.names.keys() {
            for name in self.names(*address) {
                if !suggested.contains(&name) {
                    let remark = self
                        .guard
                        .reason(*address)
                        .map(|set| format!("{address}, which is of {set}"));
                    let known = others.entry(name).or_default();
                    *known = known.take().or(remark);
                }
            }
        }
        let text = |(name, remark): (DomainName, Option<String>)| match remark {
            Some(remark) => format!("{name} ({remark})"),
            None => name.to_string(),
        };
        others.into_iter().map(text).collect()
    }
}

/// The sightings as targets, the most frequent first. The ports of one protocol at one place are one target. Nothing is
/// widened: no rule can match port 0 alone, so such sightings are returned as text.
pub(super) fn targets(
    seen: &[(Sighting, u64)],
    found: Option<&Found<'_>>,
) -> (Vec<Target>, Counted<String>) {
    type Seen = (Vec<u16>, u64, BTreeSet<String>);
    let mut places: BTreeMap<(u32, Place), Seen> = BTreeMap::new();
    let mut without = Vec::new();
    for (sighting, count) in seen {
        let address = Ipv6Addr::from(sighting.address.address()).to_canonical();
        let protocol = match sighting.protocol {
            number if number == Protocol::MPTCP.0 => Protocol::TCP.0,
            number => number,
        };
        if sighting.port == 0 && WITH_PORTS.contains(&Protocol(protocol)) {
            without.push((format!("{} to {address}", named(protocol)), *count));
            continue;
        }
        let (place, remark) = place(address, found);
        let (ports, all, remarks) = places.entry((protocol, place)).or_default();
        ports.extend(u16::try_from(sighting.port).ok().filter(|port| *port != 0));
        *all += count;
        remarks.extend(remark);
    }
    let mut targets: Vec<_> = places
        .into_iter()
        .map(|((protocol, place), (ports, count, remarks))| {
            let ports = ports.into_iter().map(|port| port..=port);
            let ports = Ports::new(ports).unwrap_or(Ports::EVERY);
            let destinations = match place {
                Place::Address(address) => vec![Destination::Prefix(single(address))],
                Place::Names(names) => names.into_iter().map(by_name).collect(),
            };
            let of = |destination| Match {
                protocol: named(protocol),
                destination,
                ports: ports.clone(),
            };
            Target {
                matches: destinations.into_iter().map(of).collect(),
                count,
                remarks: remarks.into_iter().collect(),
            }
        })
        .collect();
    targets.sort_by_key(|target| Reverse(target.count));
    (targets, without)
}

fn by_name(name: DomainName) -> Destination {
    Destination::Name(DomainPattern {
        name,
        is_below: false,
    })
}

/// The place of an address, and a remark on it.
fn place(address: IpAddr, found: Option<&Found<'_>>) -> (Place, Option<String>) {
    let by_address = Place::Address(address);
    let Some(found) = found else {
        return (by_address, None);
    };
    let names = found.names(address);
    let in_words = || {
        names
            .iter()
            .map(DomainName::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (&names[..], found.guard.reason(address)) {
        ([], _) => (by_address, None),
        (_, Some(set)) => {
            let private = match set == SetName::Lan.name() {
                true => ", unless the fence is started with --names-private",
                false => "",
            };
            let remark = format!(
                "Looked up as {}. A rule by name does not open it, since it is of {set}{private}.",
                in_words()
            );
            (by_address, Some(remark))
        }
        ([_], None) => (Place::Names(names), None),
        (_, None) => {
            let remark =
                format!("These names have {address} in common: remove those that are not meant.");
            (Place::Names(names), Some(remark))
        }
    }
}

pub(super) fn named(protocol: u32) -> Proto {
    match u8::try_from(protocol) {
        Ok(1 | 58) => Proto::Icmp,
        Ok(number) => Proto::Number(number),
        Err(_) => Proto::Any,
    }
}
