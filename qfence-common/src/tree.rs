//! The policy as the kernel has it: one decision tree over what is known of a destination.
//!
//! Each node looks at one part of it, the upper or the lower half of the address or protocol and port,
//! and says by up to fifteen bounds where to go on: a B-tree for each part, and from the leaves of one into
//! the next. A verdict then costs a step for each sixteen-fold of what the policy tells apart.

use crate::{Address, Path, Protocol, address::V4_MAPPED, verdict::Verdict};

/// How many ways there are on from a node.
pub const WAYS: usize = 16;

/// How many nodes are one below the other at most, that look at the same part of an address.
pub const ADDRESS_DEPTH: usize = 5;

/// How many nodes are one below the other at most that look at protocol and port.
pub const PORT_DEPTH: usize = 4;

/// How many nodes are one below the other at most.
pub const MAX_DEPTH: usize = 2 * ADDRESS_DEPTH + PORT_DEPTH;

/// How many nodes come first, whatever the policy: a root for each path and address family.
pub const ROOTS: usize = 4;

/// What a node looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Part {
    /// The upper half of an IPv6 address.
    Upper = 0,
    /// The lower half of an address: of an IPv4 address all of it, as it is mapped into IPv6.
    Lower = 1,
    /// Protocol and port, as a [`port_query`].
    Port = 2,
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
    root: Step,
    upper: u64,
    lower: u64,
    port: u32,
}

impl Query {
    /// A destination on a path.
    #[must_use]
    pub const fn new(path: Path, address: Address, protocol: Protocol, port: u16) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        let halves = [
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        ];
        Self::of_halves(path, halves, protocol, port)
    }

    /// A destination on a path, given the halves of its address, the upper one first.
    #[must_use]
    #[inline(always)]
    pub const fn of_halves(
        path: Path,
        [upper, lower]: [u64; 2],
        protocol: Protocol,
        port: u16,
    ) -> Self {
        Self {
            root: root(path, upper == 0 && lower >> 32 == V4_MAPPED),
            upper,
            lower,
            port: port_query(protocol, port),
        }
    }

    #[inline(always)]
    const fn part(&self, part: u32) -> u64 {
        if part == Part::Port as u32 {
            self.port as u64
        } else if part == Part::Lower as u32 {
            self.lower
        } else {
            self.upper
        }
    }
}

/// The step to the root of the tree for a path and an address family.
#[must_use]
#[inline(always)]
pub const fn root(path: Path, is_v4: bool) -> Step {
    if is_v4 {
        Step::to_node(Part::Lower, path as u32 * 2 + 1)
    } else {
        Step::to_node(Part::Upper, path as u32 * 2)
    }
}

/// Where to go on from a node: to another one, or nowhere, with a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Step(u32);

/// Set in a step to a node. Zeroed memory is a verdict, and refuses.
const TO_NODE: u32 = 1 << 31;
/// Where the part is that the node looks at, and its index below.
const PART_SHIFT: u32 = 29;

/// How many nodes there can be.
pub const MAX_NODES: u32 = 1 << PART_SHIFT;

impl Step {
    /// To the node with an index below [`MAX_NODES`], which looks at that part.
    #[must_use]
    pub const fn to_node(part: Part, index: u32) -> Self {
        Self(TO_NODE | ((part as u32) << PART_SHIFT) | (index & (MAX_NODES - 1)))
    }

    /// To a verdict.
    #[must_use]
    pub const fn to_verdict(verdict: Verdict) -> Self {
        Self(verdict.bits() & !TO_NODE)
    }

    /// The verdict, if it is one.
    #[must_use]
    #[inline(always)]
    pub const fn verdict(self) -> Option<Verdict> {
        if self.0 & TO_NODE == 0 {
            Some(Verdict::from_bits(self.0))
        } else {
            None
        }
    }

    /// The index of the node that it is to; of no meaning for a verdict.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & (MAX_NODES - 1)
    }

    /// Whether it is to a node that looks at protocol and port.
    #[must_use]
    pub const fn is_to_ports(self) -> bool {
        self.0 & TO_NODE != 0 && self.part() == Part::Port as u32
    }

    #[inline(always)]
    const fn part(self) -> u32 {
        (self.0 & !TO_NODE) >> PART_SHIFT
    }
}

/// A node of the tree: which way to go on, by the part of a query that it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Node {
    /// Where the second way begins, the third and so on: ascending. Those not in use are `u64::MAX`.
    pub bounds: [u64; WAYS - 1],
    /// The ways. Those not in use are as the last in use.
    pub steps: [Step; WAYS],
}

const _: () = assert!(size_of::<Node>() == 184 && align_of::<Node>() == 8);

impl Node {
    /// Where a way leads that leads nowhere: to a refusal by no rule.
    pub const NOWHERE: Step = Step::to_verdict(Verdict::NONE);

    /// The node with as many of the ways as there is room for, by where each begins: the first at the
    /// least that is asked.
    #[must_use]
    pub fn filled(ways: &[(u64, Step)]) -> Self {
        let last = ways.last().map_or(Self::NOWHERE, |(_, step)| *step);
        let mut node = Self {
            bounds: [u64::MAX; WAYS - 1],
            steps: [last; WAYS],
        };
        for (step, way) in node.steps.iter_mut().zip(ways) {
            *step = way.1;
        }
        for (bound, way) in node.bounds.iter_mut().zip(ways.iter().skip(1)) {
            *bound = way.0;
        }
        node
    }

    /// The way for the part of a query: that which begins last of those that do not begin above it.
    #[must_use]
    #[inline(always)]
    pub fn step(&self, part: u64) -> Step {
        // By halves. Indices that the compiler sees are within bounds, so that there is no panic.
        let mut way = 0;
        if part >= self.bounds[7] {
            way = 8;
        }
        if part >= self.bounds[way | 3] {
            way |= 4;
        }
        if part >= self.bounds[way | 1] {
            way |= 2;
        }
        if part >= self.bounds[way & 14] {
            way |= 1;
        }
        self.steps[way & 15]
    }
}

/// The nodes of a policy.
pub trait Nodes {
    /// Reads the node with an index; `None` if there is none.
    fn read<T>(&self, index: u32, read: impl FnOnce(&Node) -> T) -> Option<T>;
}

/// Decides on one destination. Where a node is not there, or the tree does not end, it is denied.
#[must_use]
#[inline(always)]
pub fn decide(nodes: &impl Nodes, query: &Query) -> Verdict {
    let mut step = query.root;
    let mut depth = 0;
    while depth < MAX_DEPTH {
        let Some(next) = nodes.read(step.index(), |node| node.step(query.part(step.part()))) else {
            return Verdict::NONE;
        };
        if let Some(verdict) = next.verdict() {
            return verdict;
        }
        step = next;
        depth += 1;
    }
    Verdict::NONE
}

/// What all destinations of an address begin with: the step from its leaf, to a verdict or to what looks
/// at protocol and port. `None` where there is no such leaf, and all is denied.
#[must_use]
pub fn leaf(nodes: &impl Nodes, path: Path, address: Address) -> Option<Step> {
    let query = Query::new(path, address, Protocol::ANY, 0);
    let mut step = query.root;
    for _ in 0..MAX_DEPTH {
        step = nodes.read(step.index(), |node| node.step(query.part(step.part())))?;
        if step.verdict().is_some() || step.is_to_ports() {
            return Some(step);
        }
    }
    None
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
        fn read<T>(&self, index: u32, read: impl FnOnce(&Node) -> T) -> Option<T> {
            self.0.get(usize::try_from(index).unwrap()).map(read)
        }
    }

    fn verdict(action: Action, rule: u32) -> Step {
        Step::to_verdict(Verdict::new(action, rule))
    }

    const DENY: Step = Step::to_verdict(Verdict::new(Action::Deny, 9));

    fn node(bounds: &[u64], steps: &[Step]) -> Node {
        let mut ways = [(0, DENY); WAYS];
        for (way, (begins, step)) in ways.iter_mut().zip([0].iter().chain(bounds).zip(steps)) {
            *way = (*begins, *step);
        }
        Node::filled(&ways[..steps.len()])
    }

    fn ask(nodes: &[Node], address: Address, protocol: Protocol, port: u16) -> Verdict {
        let query = Query::new(Path::Address, address, protocol, port);
        decide(&Tree(nodes), &query)
    }

    #[test]
    fn nothing_to_go_by_is_denied() {
        let verdict = ask(&[], [0; 16], Protocol::TCP, 80);
        assert_eq!(verdict, Verdict::NONE);
        assert_eq!(verdict.action(), Action::Deny);
    }

    #[test]
    fn each_bound_begins_a_way() {
        let ways: [(u64, Step); WAYS] = core::array::from_fn(|way| {
            let rule = u32::try_from(way).unwrap();
            (u64::from(rule) * 10, verdict(Action::Allow, rule))
        });
        let node = Node::filled(&ways);
        for (begins, step) in ways {
            for part in [begins, begins + 9] {
                assert_eq!(node.step(part), step, "{part}");
            }
        }
        assert_eq!(node.step(u64::MAX), ways[WAYS - 1].1);
    }

    #[test]
    fn ways_that_are_not_in_use_are_the_last_in_use() {
        let node = node(&[10], &[DENY, verdict(Action::Allow, 1)]);
        assert_eq!(node.step(u64::MAX), verdict(Action::Allow, 1));
    }

    #[test]
    fn each_family_has_a_root_on_each_path() {
        let roots: [Node; ROOTS] = core::array::from_fn(|rule| {
            node(&[], &[verdict(Action::Allow, u32::try_from(rule).unwrap())])
        });
        for (path, v6, v4) in [(Path::Address, 0, 1), (Path::Loopback, 2, 3)] {
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
        let nodes = [
            node(
                &[0x20 << 56, 0x21 << 56],
                &[DENY, Step::to_node(Part::Lower, 1), DENY],
            ),
            node(&[7, 8], &[DENY, Step::to_node(Part::Port, 2), DENY]),
            node(
                &[
                    port_query(Protocol::UDP, 53).into(),
                    port_query(Protocol::UDP, 54).into(),
                ],
                &[DENY, verdict(Action::Allow, 1), DENY],
            ),
        ];
        let allows = |address, protocol, port| {
            ask(&nodes, address, protocol, port).action() == Action::Allow
        };
        assert!(allows(address, Protocol::UDP, 53));
        assert!(!allows(address, Protocol::UDP, 54));
        assert!(!allows(address, Protocol::TCP, 53));
        for octet in [0, 15] {
            let mut other = address;
            other[octet] += 1;
            assert!(!allows(other, Protocol::UDP, 53));
        }
        let leaf = leaf(&Tree(&nodes), Path::Address, address).unwrap();
        assert!(leaf.is_to_ports());
    }

    #[test]
    fn a_node_that_is_not_there_denies() {
        let nodes = [node(&[], &[Step::to_node(Part::Upper, 7)])];
        assert_eq!(ask(&nodes, [0; 16], Protocol::TCP, 1), Verdict::NONE);
    }

    #[test]
    fn a_tree_without_an_end_denies() {
        let round = [node(&[], &[Step::to_node(Part::Upper, 0)])];
        assert_eq!(ask(&round, [0; 16], Protocol::UDP, 1), Verdict::NONE);
        assert_eq!(leaf(&Tree(&round), Path::Address, [0; 16]), None);
    }

    #[test]
    fn zeroed_memory_refuses() {
        let node = Node {
            bounds: [0; WAYS - 1],
            steps: [Step(0); WAYS],
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
