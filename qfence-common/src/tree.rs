//! The policy as the kernel has it: one decision tree over what is known of a destination.
//!
//! Each node looks at one part of it, the upper or the lower half of the address or protocol and port. It
//! cuts a range of that part into slots of one length, so that where to go on is computed, not searched
//! for; below and above the range there is a way each. A slot that the policy cuts further leads to a node
//! for itself. So a verdict costs a few steps, however much the policy tells apart, unless what it names
//! lies in clusters within clusters.

use crate::{Address, Halves, LookupPath, Protocol, verdict::Verdict};

/// How many nodes are one below the other at most, that look at the same part of an address.
pub const ADDRESS_DEPTH: usize = 6;

/// How many nodes are one below the other at most that look at protocol and port.
pub const PORT_DEPTH: usize = 3;

/// How many nodes are one below the other at most, above a verdict.
pub const MAX_DEPTH: usize = 2 * ADDRESS_DEPTH + PORT_DEPTH;

/// The index of a verdict that has the flags of the policy as a whole: MONITOR, and MANY if it lets something through to an
/// IPv4 address that names many. Before it is a root for each path
/// and address family.
pub const FLAGS: u32 = 4;

/// How many nodes come first, whatever the policy.
pub const HEAD: usize = 5;

/// How many nodes there can be.
pub const MAX_NODES: usize = 1 << 20;

/// What a node looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Part {
    /// The upper half of an IPv6 address.
    Upper = 1,
    /// The lower half of an address: of an IPv4 address all of it, as it is mapped into IPv6.
    Lower = 2,
    /// Protocol and port, as a [`port_query`].
    Port = 3,
}

/// What is asked about protocol and port: the protocol in the upper half, the port in the lower. MPTCP is
/// TCP.
#[must_use]
#[inline(always)]
pub const fn port_query(protocol: Protocol, port: u16) -> u32 {
    let number = if protocol.0 == Protocol::MPTCP.0 {
        Protocol::TCP.0
    } else {
        protocol.0
    };
    (number << 16) | port as u32
}

/// A destination, as the tree is asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The index of the root for its path and address family.
    pub root: u32,
    /// The upper half of its address.
    pub upper: u64,
    /// The lower half.
    pub lower: u64,
    /// Its protocol and port, as a [`port_query`].
    pub port: u32,
}

impl Query {
    /// A destination on a path.
    #[must_use]
    pub const fn new(path: LookupPath, address: Address, protocol: Protocol, port: u16) -> Self {
        Self::of_halves(path, Halves::of(address), protocol, port)
    }

    /// A destination on a path, given the halves of its address.
    #[must_use]
    #[inline(always)]
    pub const fn of_halves(
        path: LookupPath,
        address: Halves,
        protocol: Protocol,
        port: u16,
    ) -> Self {
        Self {
            root: root(path, address.is_v4()),
            upper: address.upper,
            lower: address.lower,
            port: port_query(protocol, port),
        }
    }
}

/// The index of the root of the tree for a path and an address family.
#[must_use]
#[inline(always)]
pub const fn root(path: LookupPath, is_v4: bool) -> u32 {
    path as u32 * 2 + is_v4 as u32
}

/// A node of the tree: a verdict, or where to go on by the part of a query that it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Node {
    /// Where the range begins that is cut into slots.
    base: u64,
    /// The index of the node for what is below the range, which those for the slots follow and that for
    /// what is above; of a verdict its bits.
    first: u32,
    /// The part in the two highest bits, none for a verdict; then six for the length of a slot, as a power
    /// of two; the others for the number of slots.
    shape: u32,
}

const _: () = assert!(size_of::<Node>() == 16 && align_of::<Node>() == 8);

const PART_SHIFT: u32 = 30;
const LENGTH_SHIFT: u32 = 24;
const LENGTH: u32 = 63;

/// How many slots a node can have.
pub const MAX_SLOTS: u32 = (1 << LENGTH_SHIFT) - 1;

impl Node {
    /// Where there is nothing to go by: a refusal by no rule.
    pub const NOWHERE: Self = Self::of_verdict(Verdict::NONE);

    /// A verdict. Zeroed memory is one, and refuses.
    #[must_use]
    pub const fn of_verdict(verdict: Verdict) -> Self {
        Self {
            base: 0,
            first: verdict.bits(),
            shape: 0,
        }
    }

    /// What looks at a part, of which a range from `base` on is cut into `slots`, [`MAX_SLOTS`] at most,
    /// of `1 << length` each. The node for what is below is at `first`, those for the slots follow, and
    /// that for what is above.
    #[must_use]
    pub const fn of_slots(part: Part, base: u64, length: u32, slots: u32, first: u32) -> Self {
        Self {
            base,
            first,
            shape: (part as u32) << PART_SHIFT
                | (length & LENGTH) << LENGTH_SHIFT
                | slots & MAX_SLOTS,
        }
    }

    /// The verdict, if it is one.
    #[must_use]
    #[inline(always)]
    pub const fn verdict(&self) -> Option<Verdict> {
        if self.part() == 0 {
            Some(Verdict::from_bits(self.first))
        } else {
            None
        }
    }

    /// Whether it looks at that part.
    #[must_use]
    #[inline(always)]
    pub const fn looks_at(&self, part: Part) -> bool {
        self.part() == part as u32
    }

    /// The index of the node for a value of the part that it looks at; of no meaning for a verdict.
    #[must_use]
    #[inline(always)]
    pub const fn way(&self, part: u64) -> u32 {
        if part < self.base {
            return self.first;
        }
        let slot = (part - self.base) >> self.length();
        let slots = self.slots() as u64;
        let slot = if slot < slots { slot } else { slots };
        #[expect(clippy::cast_possible_truncation, reason = "not above MAX_SLOTS")]
        self.first.wrapping_add(1).wrapping_add(slot as u32)
    }

    /// Where each way begins, in order, and the index of its node; none for a verdict.
    pub fn ways(&self) -> impl Iterator<Item = (u64, u32)> + use<> {
        let Self { base, first, .. } = *self;
        let (length, slots) = (self.length(), self.slots());
        let is_verdict = self.verdict().is_some();
        let range = (0..=slots).map_while(move |slot| {
            let begins = base.checked_add(u64::from(slot).checked_mul(1 << length)?)?;
            Some((begins, first.wrapping_add(1).wrapping_add(slot)))
        });
        let all = core::iter::once((0, first)).chain(range);
        all.filter(move |_| !is_verdict)
    }

    #[inline(always)]
    const fn part(&self) -> u32 {
        self.shape >> PART_SHIFT
    }

    #[inline(always)]
    const fn length(&self) -> u32 {
        self.shape >> LENGTH_SHIFT & LENGTH
    }

    #[inline(always)]
    const fn slots(&self) -> u32 {
        self.shape & MAX_SLOTS
    }
}

/// The nodes of a policy.
pub trait Nodes {
    /// Reads the node with an index; `None` if there is none.
    fn read(&self, index: u32) -> Option<Node>;
}

/// Decides on one destination. Where a node is not there, or the tree does not end, it is denied.
#[must_use]
#[inline(always)]
pub fn decide(nodes: &impl Nodes, query: &Query) -> Verdict {
    let port = u64::from(query.port);
    leaf(nodes, query)
        .and_then(|leaf| descend(nodes, leaf, Part::Port, port, PORT_DEPTH))
        .and_then(|node| node.verdict())
        .unwrap_or(Verdict::NONE)
}

/// What all destinations of an address begin with: the node for it, a verdict or what looks at protocol
/// and port. `None` where there is none, and all is denied.
#[must_use]
#[inline(always)]
pub fn leaf(nodes: &impl Nodes, query: &Query) -> Option<Node> {
    let root = nodes.read(query.root)?;
    let lower = descend(nodes, root, Part::Upper, query.upper, ADDRESS_DEPTH)?;
    descend(nodes, lower, Part::Lower, query.lower, ADDRESS_DEPTH)
}

/// Goes down to the first node that does not look at a part, at most so deep.
///
/// A loop for each part: in one for all of them the verifier has many more ways through each round.
#[inline(always)]
fn descend(
    nodes: &impl Nodes,
    mut node: Node,
    part: Part,
    value: u64,
    depth: usize,
) -> Option<Node> {
    // The compiler writes the loop out, which spares the verifier two thirds of its work, as it then knows
    // at each place how deep that is.
    let mut left = depth;
    while node.looks_at(part) {
        if left == 0 {
            return None;
        }
        left -= 1;
        node = nodes.read(node.way(value))?;
    }
    Some(node)
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Node {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, address::from_v4};

    struct Tree<'a>(&'a [Node]);

    impl Nodes for Tree<'_> {
        fn read(&self, index: u32) -> Option<Node> {
            self.0.get(usize::try_from(index).unwrap()).copied()
        }
    }

    const DENY: Node = Node::of_verdict(Verdict::new(Action::Deny, 9));

    fn allow(rule: u32) -> Node {
        Node::of_verdict(Verdict::new(Action::Allow, rule))
    }

    fn ask(nodes: &[Node], address: Address, protocol: Protocol, port: u16) -> Verdict {
        let query = Query::new(LookupPath::Address, address, protocol, port);
        decide(&Tree(nodes), &query)
    }

    fn any(address: Address) -> Query {
        Query::new(LookupPath::Address, address, Protocol::ANY, 0)
    }

    #[test]
    fn nothing_to_go_by_is_denied() {
        let verdict = ask(&[], [0; 16], Protocol::TCP, 80);
        assert_eq!(verdict, Verdict::NONE);
        assert_eq!(verdict.action(), Action::Deny);
    }

    #[test]
    fn slots_are_side_by_side_between_what_is_below_and_above() {
        let node = Node::of_slots(Part::Lower, 100, 3, 4, 50);
        let ways = [
            (0, 50),
            (99, 50),
            (100, 51),
            (107, 51),
            (108, 52),
            (131, 54),
            (132, 55),
            (u64::MAX, 55),
        ];
        for (part, index) in ways {
            assert_eq!(node.way(part), index, "{part}");
        }
        let begins = [
            (0, 50),
            (100, 51),
            (108, 52),
            (116, 53),
            (124, 54),
            (132, 55),
        ];
        assert!(node.ways().eq(begins));
        assert_eq!(DENY.ways().count(), 0);
    }

    #[test]
    fn a_range_may_end_where_the_numbers_do() {
        let node = Node::of_slots(Part::Upper, 1, 63, 2, 50);
        assert_eq!(node.way(0), 50);
        assert_eq!(node.way(1 << 63), 51);
        assert_eq!(node.way((1 << 63) + 1), 52);
        assert_eq!(node.way(u64::MAX), 52);
        assert!(node.ways().eq([(0, 50), (1, 51), ((1 << 63) + 1, 52)]));
    }

    #[test]
    fn each_family_has_a_root_on_each_path() {
        let roots: [Node; FLAGS as usize] =
            core::array::from_fn(|rule| allow(u32::try_from(rule).unwrap()));
        for (path, v6, v4) in [(LookupPath::Address, 0, 1), (LookupPath::Loopback, 2, 3)] {
            for (address, rule) in [
                ([0; 16], v6),
                ([0xff; 16], v6),
                (from_v4([0; 4]), v4),
                (from_v4([255; 4]), v4),
            ] {
                let query = Query::new(path, address, Protocol::TCP, 80);
                assert_eq!(decide(&Tree(&roots), &query).rule(), rule);
            }
        }
    }

    #[test]
    fn the_parts_are_asked_one_after_the_other() {
        let mut address = [0; 16];
        (address[0], address[15]) = (0x20, 7);
        let udp = |port| u64::from(port_query(Protocol::UDP, port));
        let nodes = [
            Node::of_slots(Part::Upper, 0x20 << 56, 56, 1, 1),
            DENY,
            Node::of_slots(Part::Lower, 7, 0, 1, 4),
            DENY,
            DENY,
            Node::of_slots(Part::Port, udp(53), 0, 1, 7),
            DENY,
            DENY,
            allow(1),
            DENY,
        ];
        let allows = |address, protocol, port| {
            ask(&nodes, address, protocol, port).action() == Action::Allow
        };
        assert!(allows(address, Protocol::UDP, 53));
        assert!(!allows(address, Protocol::UDP, 52));
        assert!(!allows(address, Protocol::UDP, 54));
        assert!(!allows(address, Protocol::TCP, 53));
        for octet in [0, 15] {
            let mut other = address;
            other[octet] += 1;
            assert!(!allows(other, Protocol::UDP, 53));
        }
        let leaf = leaf(&Tree(&nodes), &any(address)).unwrap();
        assert!(leaf.looks_at(Part::Port));
    }

    #[test]
    fn a_node_that_is_not_there_denies() {
        let nodes = [Node::of_slots(Part::Upper, 1, 0, 1, 7)];
        assert_eq!(ask(&nodes, [0; 16], Protocol::TCP, 1), Verdict::NONE);
    }

    #[test]
    fn a_tree_without_an_end_denies() {
        let round = [Node::of_slots(Part::Upper, 1, 0, 1, 0)];
        assert_eq!(ask(&round, [0; 16], Protocol::UDP, 1), Verdict::NONE);
        assert_eq!(leaf(&Tree(&round), &any([0; 16])), None);
    }

    #[test]
    fn zeroed_memory_refuses() {
        let node = Node {
            base: 0,
            first: 0,
            shape: 0,
        };
        let verdict = ask(&[node], [0; 16], Protocol::TCP, 1);
        assert_eq!(verdict.action(), Action::Deny);
    }

    #[test]
    fn mptcp_is_tcp() {
        assert_eq!(
            port_query(Protocol::MPTCP, 80),
            port_query(Protocol::TCP, 80)
        );
        assert_ne!(port_query(Protocol::TCP, 80), port_query(Protocol::UDP, 80));
    }
}
