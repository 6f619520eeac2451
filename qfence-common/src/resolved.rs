//! The addresses that rules by name allow, and for how long; and where queries for names are led.
//!
//! A rule by name has no prefix in the tree. Whoever resolves a name writes its addresses to a map, each with the
//! [grants](Grant) of the rules that allow the name. A destination that the tree denies is looked up there, and a grant
//! allows it if its rule precedes the rule that denies, and has the protocol and port. Which rules and ports these are,
//! is in the tree: so a grant of a rule that is no longer in the policy allows nothing.

use crate::{
    Halves,
    tree::{NAMED_RULES, Node, Nodes, PORT_DEPTH, Part},
    verdict::{MAX_RULES, MONITOR, Verdict},
};

/// The maximum number of grants of an address.
pub const GRANTS: usize = 8;

/// The number of a rule by name, and of a group of its ports: one word, because it is in a map.
///
/// The names of a rule with the same protocols and ports are a group. A rule keeps its number as long as it is in the
/// policy, and its groups with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Grant(u16);

/// The number of bits of a group in a [`Grant`].
const GROUP_BITS: u32 = 6;

/// The maximum number of groups of a rule.
pub const MAX_GROUPS: u32 = (1 << GROUP_BITS) - 1;

const _: () = assert!(MAX_RULES << GROUP_BITS == 1 << u16::BITS);

impl Grant {
    /// No grant. Its group is none of any rule.
    pub const NONE: Self = Self(u16::MAX);

    /// Makes the grant of a rule's group. `None` if the rule's number is not below [`MAX_RULES`], or the group's not below
    /// [`MAX_GROUPS`].
    #[must_use]
    pub const fn new(rule: u32, group: u32) -> Option<Self> {
        if rule >= MAX_RULES || group >= MAX_GROUPS {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "16 bits, asserted above")]
        Some(Self((rule << GROUP_BITS | group) as u16))
    }

    /// The number of the rule.
    #[must_use]
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 as u32 >> GROUP_BITS
    }

    /// The number of the group.
    #[must_use]
    #[inline(always)]
    pub const fn group(self) -> u32 {
        self.0 as u32 & MAX_GROUPS
    }
}

/// What rules by name allow of an address, and for how long. The key in the map is a [`Halves`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Resolved {
    /// The end of it, in nanoseconds since boot, suspend included. A verdict that uses it moves it to [`USED_FOR_NS`] later,
    /// but not beyond `until_ns`.
    pub expires_ns: u64,
    /// The end that use does not move. Only the process that resolves names moves it.
    pub until_ns: u64,
    /// The grants, without gaps: those after [`Grant::NONE`] have no meaning.
    pub grants: [Grant; GRANTS],
}

const _: () = assert!(size_of::<Resolved>() == 32 && align_of::<Resolved>() == 8);

/// For how long an address is allowed after its use, in nanoseconds.
pub const USED_FOR_NS: u64 = 60_000_000_000;

impl Resolved {
    /// Whether it is over at `now_ns`.
    #[must_use]
    #[inline(always)]
    pub const fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.expires_ns || now_ns >= self.until_ns
    }

    /// The end after a use at `now_ns`.
    #[must_use]
    #[inline(always)]
    pub const fn expires_after_use(&self, now_ns: u64) -> u64 {
        let used = now_ns.saturating_add(USED_FOR_NS);
        let used = if used < self.until_ns {
            used
        } else {
            self.until_ns
        };
        if used < self.expires_ns {
            self.expires_ns
        } else {
            used
        }
    }
}

/// Decides on a destination that the tree denies, by the grants of its address. `port` is its protocol and port, as a
/// [`crate::tree::port_query`]. Of the rules that allow it, the one that is tried first decides. Returns `denied` if no
/// grant allows it.
#[must_use]
#[inline(always)]
pub fn decide_by_name(
    nodes: &impl Nodes,
    denied: Verdict,
    port: u32,
    grants: &[Grant; GRANTS],
) -> Verdict {
    let Some(rules) = nodes.read(NAMED_RULES) else {
        return denied;
    };
    let Some(denied_at) = rank(nodes, &rules, denied.rule()) else {
        return denied;
    };
    let (mut first, mut by) = (denied_at, 0);
    for &grant in grants {
        if grant == Grant::NONE {
            break;
        }
        let (rule, at) = match rank(nodes, &rules, grant.rule()) {
            Some(at) => (grant.rule(), at),
            None => (0, MAX_RULES),
        };
        if at < first && allows(nodes, &rules, rule, grant.group(), port) {
            first = at;
            by = rule;
        }
    }
    if first == denied_at {
        return denied;
    }
    Verdict::new(crate::Action::Allow, by).with(denied.bits() & MONITOR)
}

/// The rank of a rule: lower ones are tried first. `None` if the policy has no such rule.
///
/// The table of rules has a child for each rule number: the rank, or for a rule by name a table, whose lowest child is
/// the rank, followed by a child for each group.
#[inline(always)]
fn rank(nodes: &impl Nodes, rules: &Node, rule: u32) -> Option<u32> {
    if !rules.looks_at(Part::Port) || rule >= MAX_RULES {
        return None;
    }
    let mut node = nodes.read(rules.way(rule as u64))?;
    if node.looks_at(Part::Port) {
        node = nodes.read(node.way(0))?;
    }
    let rank = node.verdict()?.bits();
    if rank < MAX_RULES { Some(rank) } else { None }
}

/// Whether a group of a rule by name has a protocol and port.
#[inline(always)]
fn allows(nodes: &impl Nodes, rules: &Node, rule: u32, group: u32, port: u32) -> bool {
    let Some(groups) = nodes.read(rules.way(rule as u64)) else {
        return false;
    };
    if !groups.looks_at(Part::Port) {
        return false;
    }
    let Some(mut node) = nodes.read(groups.way(group as u64 + 1)) else {
        return false;
    };
    let mut left = PORT_DEPTH;
    while node.looks_at(Part::Port) {
        if left == 0 {
            return false;
        }
        left -= 1;
        node = match nodes.read(node.way(port as u64)) {
            Some(node) => node,
            None => return false,
        };
    }
    match node.verdict() {
        Some(verdict) => matches!(verdict.action(), crate::Action::Allow),
        None => false,
    }
}

/// Where queries for names are led: a socket of qfence. All zero in a fence without rules by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Resolver {
    /// The cookie of the network namespace in which it listens. Queries in other namespaces are not led.
    pub netns: u64,
    /// Its IPv4 address, as a number in host order.
    pub v4: u32,
    /// Its port, in host order, for UDP and TCP.
    pub port: u16,
    /// 1 if it listens on `::1` as well; otherwise 0.
    pub has_v6: u16,
}

const _: () = assert!(size_of::<Resolver>() == 16 && align_of::<Resolver>() == 8);

impl Resolver {
    /// Whether a destination is the resolver.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, address: Halves, port: u16) -> bool {
        if self.port == 0 || port != self.port {
            return false;
        }
        let v4 = Halves::from_v4(self.v4);
        (address.upper == v4.upper && address.lower == v4.lower)
            || (self.has_v6 != 0 && address.upper == 0 && address.lower == 1)
    }
}

/// The source of a query that was led to the resolver: the key of the map of those who ask. A query from another source
/// is not the fence's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Asker {
    /// The source address.
    pub address: Halves,
    /// The source port, in host order.
    pub port: u16,
    /// The number of the IP protocol: UDP or TCP.
    pub protocol: u16,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Asker>() == 24 && align_of::<Asker>() == 8);

/// The maximum number of those who ask. The one that was silent for longest gives up its place.
pub const ASKERS: u32 = 4096;

/// The maximum number of addresses that rules by name allow at a time.
pub const RESOLVED: u32 = 2048;

// SAFETY: `repr(C)` structs of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Resolved {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Resolver {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Asker {}

#[cfg(test)]
mod tests;
