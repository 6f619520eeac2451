//! Grows the decision tree of a policy. The leaves for one part of a destination are the roots for the next part.

use std::collections::HashMap;

use qfence_common::{
    LookupPath, Node, Verdict,
    tree::{ADDRESS_DEPTH, FLAGS, HEAD, MAX_NODES, MAX_SLOTS, NAMED_RULES, PORT_DEPTH, Part, root},
};

use super::{
    cut::{Cut, FEW_BITS, Slots, bits_a_node},
    intervals::{Intervals, split, v4_of, without_v4},
};

/// The rules need more nodes than there is room for; with the number of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) pieces: usize,
}

enum Stop {
    TooDeep,
    TooMany,
}

/// The most children of a node that are remembered for sharing.
const SHARED: usize = 64;

/// A growing tree. Its first nodes are its roots.
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// The index of lists of children. Many prefixes of one rule are divided alike, and look-ups of shared nodes find
    /// them in the CPU cache.
    shared: HashMap<Box<[Node]>, usize>,
}

impl Tree {
    /// An empty tree.
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::NOWHERE; HEAD],
            shared: HashMap::new(),
        }
    }

    /// Its nodes, for a policy with these flags.
    pub(super) fn into_nodes(mut self, flags: u32) -> Vec<Node> {
        let of_policy = Node::of_verdict(Verdict::NONE.with(flags));
        self.nodes[FLAGS] = of_policy;
        let named = &mut self.nodes[NAMED_RULES];
        if named.verdict().is_some() {
            *named = of_policy;
        }
        self.nodes
    }

    /// Adds a table: the children for `base` and each number after it, between the first child, for numbers below, and the
    /// last, for those above.
    pub(super) fn table(&mut self, base: u64, children: Vec<Node>) -> Result<Node, TooMany> {
        let too_many = TooMany {
            pieces: children.len(),
        };
        let slots = u32::try_from(children.len().saturating_sub(2));
        let first = self
            .put(children)
            .ok()
            .and_then(|first| u32::try_from(first).ok());
        match (slots, first) {
            (Ok(slots), Some(first)) if slots <= MAX_SLOTS => {
                Ok(Node::of_slots(Part::Port, base, 0, slots, first))
            }
            _ => Err(too_many),
        }
    }

    /// Grows the nodes for protocol and port. `pieces` has the first value and the step of each piece.
    pub(super) fn grow_ports(&mut self, pieces: &[(u64, Node)]) -> Result<Node, TooMany> {
        self.grow(Part::Port, Slots::ByBounds, pieces)
    }

    /// Grows the nodes for the addresses of a path.
    pub(super) fn grow_addresses(
        &mut self,
        path: LookupPath,
        intervals: &Intervals,
    ) -> Result<(), TooMany> {
        let v4 = self.grow(Part::Lower, Slots::OfRoot, &v4_of(intervals))?;
        self.nodes[root(path, true)] = v4;
        let mut upper = Vec::new();
        for (half, lower) in split(&without_v4(intervals)) {
            upper.push((half, self.grow(Part::Lower, Slots::ByBounds, &lower)?));
        }
        let v6 = self.grow(Part::Upper, Slots::OfRoot, &upper)?;
        self.nodes[root(path, false)] = v6;
        Ok(())
    }

    /// Grows the nodes for one part of a destination. `pieces` has the first value and the step of each piece; the
    /// first is at 0.
    pub(super) fn grow(
        &mut self,
        part: Part,
        slots: Slots,
        pieces: &[(u64, Node)],
    ) -> Result<Node, TooMany> {
        let depth = match part {
            Part::Upper | Part::Lower => ADDRESS_DEPTH,
            Part::Port => PORT_DEPTH,
        };
        let grown = match self.branch(part, pieces, depth, slots) {
            Err(Stop::TooDeep) => self.cut(part, pieces, depth, Slots::ByDepth),
            other => other,
        };
        grown.map_err(|_| TooMany {
            pieces: pieces.len(),
        })
    }

    /// Grows one node, at most `depth` deep. If bounds form clusters within clusters, the lowest node that can reach
    /// them all with nodes of [`FEW_BITS`] is divided by depth.
    fn branch(
        &mut self,
        part: Part,
        pieces: &[(u64, Node)],
        depth: usize,
        slots: Slots,
    ) -> Result<Node, Stop> {
        let before = self.nodes.len();
        match self.cut(part, pieces, depth, slots) {
            Err(Stop::TooDeep) => {
                self.nodes.truncate(before);
                self.shared.retain(|_, first| *first < before);
                let is_done = match pieces {
                    [_, (from, _), .., (to, _)] => bits_a_node(to - from, depth) <= FEW_BITS,
                    _ => false,
                };
                if !is_done {
                    return Err(Stop::TooDeep);
                }
                self.cut(part, pieces, depth, Slots::ByDepth)
            }
            other => other,
        }
    }

    /// Like [`Tree::branch`], with one way of choosing slots. The beginning of the first piece is not used.
    fn cut(
        &mut self,
        part: Part,
        pieces: &[(u64, Node)],
        depth: usize,
        slots: Slots,
    ) -> Result<Node, Stop> {
        let bounds = match pieces {
            [] => return Ok(Node::NOWHERE),
            [(_, only)] => return Ok(*only),
            [_, bounds @ ..] => bounds,
        };
        if depth == 0 {
            return Err(Stop::TooDeep);
        }
        let Cut {
            from,
            length,
            count,
        } = Cut::new(part, bounds, depth, slots);
        let base = bounds[from].0;
        let slots = slots.below();
        let ways = count + 2;
        let slots_fit = u32::try_from(count).is_ok_and(|count| count <= MAX_SLOTS);
        if !slots_fit || self.nodes.len() + ways > MAX_NODES {
            return Err(Stop::TooMany);
        }
        let mut to = Vec::with_capacity(ways);
        to.push(self.branch(part, &pieces[..=from], depth - 1, slots)?);
        // The piece in which the slot begins.
        let mut at = from + 1;
        for slot in 0..count {
            let ends = u128::from(base) + ((slot as u128 + 1) << length);
            let inside = pieces[at + 1..].partition_point(|(begins, _)| u128::from(*begins) < ends);
            let next = at + 1 + inside;
            to.push(self.branch(part, &pieces[at..next], depth - 1, slots)?);
            let begins = |index: usize| pieces.get(index).map(|(begins, _)| u128::from(*begins));
            at = if begins(next) == Some(ends) {
                next
            } else {
                next - 1
            };
        }
        to.push(self.branch(part, &pieces[at..], depth - 1, slots)?);
        let first = self.put(to)?;
        let small = |number: usize| u32::try_from(number).map_err(|_| Stop::TooMany);
        Ok(Node::of_slots(
            part,
            base,
            length,
            small(count)?,
            small(first)?,
        ))
    }

    /// Adds nodes next to each other, or finds equal ones. Returns the index of the first.
    fn put(&mut self, nodes: Vec<Node>) -> Result<usize, Stop> {
        if let Some(first) = self.shared.get(nodes.as_slice()) {
            return Ok(*first);
        }
        let first = self.nodes.len();
        if first + nodes.len() > MAX_NODES {
            return Err(Stop::TooMany);
        }
        self.nodes.extend_from_slice(&nodes);
        if nodes.len() <= SHARED {
            self.shared.insert(nodes.into_boxed_slice(), first);
        }
        Ok(first)
    }
}
