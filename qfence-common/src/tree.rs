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
mod tests;
