//! Compiles a policy to the contents of the policy map.
//!
//! For each prefix that any rule or set has, the entry says what the rules whose destination holds that
//! prefix make of each protocol and port: [`membership`] finds those rules, [`tree`] decides between
//! them. First match then costs one longest-prefix lookup and a few steps down a tree.
//!
//! There are two sets of prefixes, one for each path. Through the loopback device everything is the host.

mod membership;
pub mod shadow;
mod tree;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::Ipv6Net;
use membership::{Membership, Place};
use qfence_common::{
    Decision, Entry, Node, Nodes, Path, Protocol, decide,
    entry::{HOST, MANY, MONITOR},
};
use tree::Trees;

use crate::{
    hostset::single,
    policy::{Numbered, Prefix, Sets},
};

pub use tree::TooManyBoundaries;

/// The contents of the policy map and of the map of its trees.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The entries. `::/0` is always there, for each path.
    pub entries: BTreeMap<(Path, Prefix), Entry>,
    /// The nodes of all trees.
    pub nodes: Vec<Node>,
}

/// Compiles `rules`, of which the last matches everything, with the members that `sets` have now.
/// With `monitor` nothing is to be refused.
///
/// # Errors
/// If the rules for a prefix need more boundaries between ports than a tree can have; nothing is ever
/// cut short.
pub fn compile(
    rules: &[Numbered],
    sets: &Sets,
    monitor: bool,
) -> Result<Compiled, TooManyBoundaries> {
    let mut compiled = Compiled::default();
    let mut trees = Trees::new(rules);
    for path in Path::ALL {
        let membership = Membership::new(rules, sets, path);
        // The entries of the prefixes that hold the one at hand, the nearest last.
        let mut above: Vec<(Prefix, Entry)> = Vec::new();
        membership.try_for_each_prefix(|place| {
            let entry = Entry {
                flags: flags(place, path, monitor),
                ..trees.entry(place)?
            };
            while above
                .last()
                .is_some_and(|(outer, _)| !outer.contains(&place.prefix))
            {
                above.pop();
            }
            // What says the same as what is around it is not needed.
            if above.last().is_none_or(|(_, outer)| *outer != entry) {
                compiled.entries.insert((path, place.prefix), entry);
            }
            above.push((place.prefix, entry));
            Ok(())
        })?;
    }
    compiled.nodes = trees.into_nodes();
    Ok(compiled)
}

fn flags(place: &Place<'_>, path: Path, monitor: bool) -> u32 {
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    flag(HOST, place.is_host)
        // Asked for by address alone.
        | flag(MANY, place.is_many && path == Path::Address)
        | flag(MONITOR, monitor)
}

impl Compiled {
    /// What the kernel decides by this.
    #[must_use]
    pub fn decide(&self, path: Path, protocol: Protocol, address: IpAddr, port: u16) -> Decision {
        decide(self.look_up(path, address), self, protocol, port)
    }

    /// What the kernel looks up: the entry of the longest prefix that holds the address.
    #[must_use]
    pub fn look_up(&self, path: Path, address: IpAddr) -> Option<&Entry> {
        let mut prefix = single(address);
        loop {
            if let Some(entry) = self.entries.get(&(path, prefix)) {
                return Some(entry);
            }
            let shorter = prefix.prefix_len().checked_sub(1)?;
            prefix = Ipv6Net::new(prefix.addr(), shorter).ok()?.trunc();
        }
    }
}

/// There is one half.
impl Nodes for Compiled {
    fn node(&self, _half: u32, index: u32) -> Option<Node> {
        self.nodes.get(usize::try_from(index).ok()?).copied()
    }
}

#[cfg(test)]
mod tests;
