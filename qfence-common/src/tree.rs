//! The policy in the form that the kernel uses: one decision tree over the parts of a destination.
//!
//! Each node examines one part: the upper or the lower half of the address, or protocol and port. A node divides a
//! range of this part into slots of equal length. So the index of the next node is computed, without a search. One more
//! child covers the values below the range, and another the values above it. If the policy divides a slot further, the
//! child for the slot is a node of its own. So a verdict takes a few steps, however many destinations the policy
//! distinguishes. Only prefixes that form clusters within clusters take more.

use crate::{Address, Halves, LookupPath, Protocol, verdict::Verdict};

/// The maximum number of nodes on a path that examine the same half of an address.
pub const ADDRESS_DEPTH: usize = 6;

/// The maximum number of nodes on a path that examine protocol and port.
pub const PORT_DEPTH: usize = 3;

/// The maximum number of nodes on a path above a verdict.
pub const MAX_DEPTH: usize = 2 * ADDRESS_DEPTH + PORT_DEPTH;

/// The index of a verdict with the flags of the policy as a whole: MONITOR, and MANY if the policy allows any traffic to an
/// IPv4 broadcast or multicast address, and SELF if it has a rule for `self`. The nodes before it are the roots for each
/// path and address family.
pub const FLAGS: usize = 4;

/// The index of the table of rules, which a policy with rules by name has: see [`crate::resolved`].
pub const NAMED_RULES: usize = 5;

/// The number of nodes with a fixed meaning, at the start of every tree.
pub const HEAD: usize = 6;

/// The number of nodes at the start of a tree that programs read without a call of a function. The tree of a host with few
/// addresses has no more; a path beyond them takes the calls.
pub const FRONT: usize = 768;

/// The maximum number of nodes on a path within them that examine the same part.
const FRONT_DEPTH: usize = 3;

/// The first nodes of a tree, and zeros if it has fewer. They are one value of a map, so that programs find each by an addition
/// instead of a look-up.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Front([Node; FRONT]);

impl Front {
    /// That of the tree with these nodes. Its zeros deny.
    #[must_use]
    pub fn of(nodes: &[Node]) -> Self {
        let mut front = [Node::NOWHERE; FRONT];
        for (place, node) in front.iter_mut().zip(nodes) {
            *place = *node;
        }
        Self(front)
    }
}

impl Nodes for Front {
    #[inline(always)]
    fn read(&self, index: usize) -> Option<Node> {
        self.0.get(index).copied()
    }
}

/// The maximum number of nodes.
pub const MAX_NODES: usize = 1 << 20;

/// The part of a destination that a node examines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Part {
    /// The upper half of an IPv6 address.
    Upper = 1,
    /// The lower half of an address. It contains the whole of an IPv4 address, which is mapped into IPv6.
    Lower = 2,
    /// Protocol and port, as a [`port_query`].
    Port = 3,
}

/// Packs protocol and port for a query: the protocol in the upper half, the port in the lower. MPTCP counts as TCP.
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

/// A destination, in the form of a query to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The index of the root for the destination's path and address family.
    pub root: usize,
    /// The upper half of the address.
    pub upper: u64,
    /// The lower half of the address.
    pub lower: u64,
    /// Protocol and port, as a [`port_query`].
    pub port: u32,
}

impl Query {
    /// Makes a query for a destination on a path.
    #[must_use]
    pub const fn new(path: LookupPath, address: Address, protocol: Protocol, port: u16) -> Self {
        Self::of_halves(path, Halves::of(address), protocol, port)
    }

    /// Makes a query for a destination on a path, from the halves of its address.
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

/// Returns the index of the root for a path and an address family.
#[must_use]
#[inline(always)]
pub const fn root(path: LookupPath, is_v4: bool) -> usize {
    path as usize * 2 + is_v4 as usize
}

/// A node of the tree: a verdict, or a table of children for the values of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Node {
    /// The start of the range that is divided into slots.
    base: u64,
    /// The index of the child for values below the range. The children for the slots follow it, then the child for
    /// values above the range. In a verdict: its bits.
    first: u32,
    /// The two highest bits are the part, or 0 for a verdict. The next six are the length of a slot, as a power of two.
    /// The others are the number of slots.
    shape: u32,
}

const _: () = assert!(size_of::<Node>() == 16 && align_of::<Node>() == 8);

const PART_SHIFT: u32 = 30;
const LENGTH_SHIFT: u32 = 24;
const LENGTH: u32 = 63;

/// The maximum number of slots of a node.
pub const MAX_SLOTS: u32 = (1 << LENGTH_SHIFT) - 1;

impl Node {
    /// A verdict for missing nodes: denied, by no rule.
    pub const NOWHERE: Self = Self::of_verdict(Verdict::NONE);

    /// Makes a node of a verdict. Zeroed memory is a verdict that denies.
    #[must_use]
    pub const fn of_verdict(verdict: Verdict) -> Self {
        Self {
            base: 0,
            first: verdict.bits(),
            shape: 0,
        }
    }

    /// Makes a node that examines a part. The range from `base` on is divided into `slots`, at most [`MAX_SLOTS`], of
    /// `1 << length` values each. `first` is the index of the child for values below the range. The children for the
    /// slots follow it, then the child for values above the range.
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

    /// Returns the verdict, if the node is one.
    #[must_use]
    #[inline(always)]
    pub const fn verdict(&self) -> Option<Verdict> {
        if self.part() == 0 {
            Some(Verdict::from_bits(self.first))
        } else {
            None
        }
    }

    /// Whether the node examines this part.
    #[must_use]
    #[inline(always)]
    pub const fn looks_at(&self, part: Part) -> bool {
        self.part() == part as u32
    }

    /// Returns the index of the child for a value of the part that the node examines. Meaningless for a verdict.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a slot is not above MAX_SLOTS"
    )]
    pub const fn way(&self, part: u64) -> usize {
        let first = self.first as usize;
        if part < self.base {
            return first;
        }
        let slot = (part - self.base) >> self.length();
        let slots = self.slots() as u64;
        let slot = if slot < slots { slot } else { slots };
        first + 1 + slot as usize
    }

    /// Returns the first value and the index of each child, in order. Empty for a verdict.
    pub fn ways(&self) -> impl Iterator<Item = (u64, usize)> + use<> {
        let base = self.base;
        let first = self.first as usize;
        let (length, slots) = (self.length(), self.slots());
        let is_verdict = self.verdict().is_some();
        let range = (0..=slots).map_while(move |slot| {
            let begins = base.checked_add(u64::from(slot).checked_mul(1 << length)?)?;
            Some((begins, first + 1 + slot as usize))
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
    /// Reads the node with an index; `None` if it does not exist. The index is not shorter than an address: of a shorter one,
    /// LLVM checks the bounds of one copy and uses another one, which the kernel's verifier rejects.
    fn read(&self, index: usize) -> Option<Node>;
}

/// Decides on one destination. It is denied if a node is missing, or if the tree is too deep.
#[must_use]
#[inline(always)]
pub fn decide(nodes: &impl Nodes, query: &Query) -> Verdict {
    within(nodes, query, ADDRESS_DEPTH, PORT_DEPTH).unwrap_or(Verdict::NONE)
}

/// Decides as [`decide`] does for a tree whose first nodes these are; `None` if the path to the verdict leaves them, or is one
/// of the few long ones.
#[must_use]
#[inline(always)]
pub fn decide_in_front(front: &impl Nodes, query: &Query) -> Option<Verdict> {
    within(front, query, FRONT_DEPTH, FRONT_DEPTH)
}

#[inline(always)]
fn within(
    nodes: &impl Nodes,
    query: &Query,
    address_depth: usize,
    port_depth: usize,
) -> Option<Verdict> {
    let port = u64::from(query.port);
    leaf_within(nodes, query, address_depth)
        .and_then(|leaf| descend(nodes, leaf, Part::Port, port, port_depth))
        .and_then(|node| node.verdict())
}

/// Finds the node for an address: a verdict, or a node that examines protocol and port. `None` if a node is missing;
/// then every destination of the address is denied.
#[must_use]
#[inline(always)]
pub fn leaf(nodes: &impl Nodes, query: &Query) -> Option<Node> {
    leaf_within(nodes, query, ADDRESS_DEPTH)
}

#[inline(always)]
fn leaf_within(nodes: &impl Nodes, query: &Query, depth: usize) -> Option<Node> {
    let root = nodes.read(query.root)?;
    let lower = descend(nodes, root, Part::Upper, query.upper, depth)?;
    descend(nodes, lower, Part::Lower, query.lower, depth)
}

/// Descends to the first node that does not examine this part, by at most `depth` steps.
///
/// There is one call for each part: a single loop for all parts would give the verifier many more paths through each
/// iteration.
#[inline(always)]
fn descend(
    nodes: &impl Nodes,
    mut node: Node,
    part: Part,
    value: u64,
    depth: usize,
) -> Option<Node> {
    // The compiler unrolls this loop. That saves the verifier two thirds of its work, because the depth is then known
    // at each instruction.
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

// SAFETY: nodes, as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Front {}

#[cfg(test)]
mod tests;
