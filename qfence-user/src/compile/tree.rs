//! Grows the tree of a policy: for each part of a destination, its leaves the roots of the next.

use std::collections::HashMap;

use qfence_common::{
    LookupPath, Node, Verdict,
    tree::{ADDRESS_DEPTH, FLAGS, HEAD, MAX_NODES, MAX_SLOTS, PORT_DEPTH, Part, root},
};

use super::intervals::{Intervals, split, v4_of, without_v4};

/// The slots that a node has at least, if what it cuts does not come out even before.
const LEAST_SLOTS: u64 = 2;

/// The same for a root, where all look-ups begin: most of what a policy that names a few prefixes does not name
/// is told there.
const ROOT_SLOTS: u64 = 256;

/// Of how many bounds one on either side may lie apart from the others.
const FAR: usize = 16;

/// How many bits a node tells apart at most where clusters within clusters are cut by depth, if that can be
/// done below the root.
const FEW_BITS: u32 = 8;

/// What is told apart takes more nodes than there is room for: into how many pieces that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) pieces: usize,
}

/// How many slots a node is cut into.
#[derive(Clone, Copy)]
enum Slots {
    /// As the next, but [`ROOT_SLOTS`] at least.
    OfRoot,
    /// About one for each prefix or port, where most of them lie: the fewest nodes, unless bounds lie in clusters within clusters.
    ByBounds,
    /// As many as it takes for the nodes below to be done within the greatest depth, wherever bounds lie.
    ByDepth,
}

impl Slots {
    /// Those of the nodes below.
    fn below(self) -> Self {
        match self {
            Self::OfRoot | Self::ByBounds => Self::ByBounds,
            Self::ByDepth => Self::ByDepth,
        }
    }
}

enum Stop {
    TooDeep,
    TooMany,
}

/// Of how many ways those are remembered that lead to the same.
const SHARED: usize = 64;

/// A tree that grows. Its first nodes are its roots.
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Where ways are that lead to such nodes: many prefixes of one rule are cut alike, and look-ups that
    /// share a node find it in the cache.
    shared: HashMap<Box<[Node]>, usize>,
}

impl Tree {
    /// One in which nothing has grown yet.
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::NOWHERE; HEAD],
            shared: HashMap::new(),
        }
    }

    /// Its nodes, of a policy that has these flags as a whole.
    pub(super) fn into_nodes(mut self, flags: u32) -> Vec<Node> {
        self.nodes[FLAGS as usize] = Node::of_verdict(Verdict::NONE.with(flags));
        self.nodes
    }

    /// Grows what looks at protocol and port, from where each piece begins.
    pub(super) fn grow_ports(&mut self, pieces: &[(u64, Node)]) -> Result<Node, TooMany> {
        self.grow(Part::Port, Slots::ByBounds, pieces)
    }

    /// Grows what looks at the addresses of a path.
    pub(super) fn grow_addresses(
        &mut self,
        path: LookupPath,
        intervals: &Intervals,
    ) -> Result<(), TooMany> {
        let v4 = self.grow(Part::Lower, Slots::OfRoot, &v4_of(intervals))?;
        self.nodes[root(path, true) as usize] = v4;
        let mut upper = Vec::new();
        for (half, lower) in split(&without_v4(intervals)) {
            upper.push((half, self.grow(Part::Lower, Slots::ByBounds, &lower)?));
        }
        let v6 = self.grow(Part::Upper, Slots::OfRoot, &upper)?;
        self.nodes[root(path, false) as usize] = v6;
        Ok(())
    }

    /// Grows what looks at one part, from where each piece begins, the first at 0, to what it leads to.
    fn grow(&mut self, part: Part, slots: Slots, pieces: &[(u64, Node)]) -> Result<Node, TooMany> {
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

    /// Grows what is at one place, `depth` nodes deep at most: where bounds lie in clusters within clusters,
    /// from the lowest node on that it takes to reach them all with nodes of [`FEW_BITS`].
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

    /// As [`Tree::branch`], by that way of cutting alone. Where the first piece begins is of no account.
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
        // The piece that the slot begins within.
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

    /// Puts nodes side by side, or finds such as are; the index of the first.
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

/// Of how many bits each node has to tell apart the values, that a range of this length is cut whole at that depth.
fn bits_a_node(range: u64, depth: usize) -> u32 {
    let bits = u64::BITS - range.leading_zeros();
    bits.div_ceil(u32::try_from(depth).unwrap_or(1).max(1))
}

/// Which range is cut into slots: from which bound on, how long a slot is, as a power of two, and how many.
struct Cut {
    from: usize,
    length: u32,
    count: usize,
}

impl Cut {
    fn new(part: Part, bounds: &[(u64, Node)], depth: usize, slots: Slots) -> Self {
        let all = Self::of(part, bounds, depth, slots);
        let aside = bounds.len() / FAR;
        if matches!(slots, Slots::ByDepth) || aside == 0 {
            return all;
        }
        // Where most bounds lie close together, slots that are long enough for all would each hold many.
        let (mut from, mut to) = (aside, bounds.len() - 1 - aside);
        let close = Self::of(part, &bounds[from..=to], depth, slots);
        if close.length + 1 >= all.length {
            return all;
        }
        let far = (LEAST_SLOTS << close.length).min(u64::MAX >> 1);
        while from > 0 && bounds[from].0 - bounds[from - 1].0 < far {
            from -= 1;
        }
        while to + 1 < bounds.len() && bounds[to + 1].0 - bounds[to].0 < far {
            to += 1;
        }
        Self {
            from,
            ..Self::of(part, &bounds[from..=to], depth, slots)
        }
    }

    /// From the first of the bounds to the last.
    fn of(part: Part, bounds: &[(u64, Node)], depth: usize, slots: Slots) -> Self {
        // A prefix has two bounds, and a port most often has its neighbours for others.
        let each = match part {
            Part::Upper | Part::Lower => 2,
            Part::Port => 1,
        };
        let base = bounds[0].0;
        let range = bounds[bounds.len() - 1].0 - base;
        let most = LEAST_SLOTS.max((bounds.len() / each) as u64);
        let most = match slots {
            Slots::OfRoot => most.max(ROOT_SLOTS),
            Slots::ByBounds => most,
            // What is left of the range's bits below each node is what the nodes below are sure to cut.
            Slots::ByDepth => most.max(1 << bits_a_node(range, depth)),
        };
        let count = |length: u32| (u128::from(range)).div_ceil(1 << length);
        let short = (0..u64::BITS).find(|length| count(*length) <= u128::from(most));
        // Where all bounds are at multiples of a length no shorter one is of use.
        let even = bounds
            .iter()
            .map(|(begins, _)| (begins - base).trailing_zeros())
            .min();
        let length = short.max(even).unwrap_or(0).min(u64::BITS - 1);
        Self {
            from: 0,
            length,
            count: usize::try_from(count(length)).unwrap_or(usize::MAX - 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::{Action, Nodes, Verdict};

    use super::*;

    impl Nodes for Tree {
        fn read(&self, index: u32) -> Option<Node> {
            self.nodes.get(index as usize).copied()
        }
    }

    fn says(rule: usize) -> Node {
        Node::of_verdict(Verdict::new(Action::Allow, u32::try_from(rule).unwrap()))
    }

    /// Grows bounds of the lower half, asks at each of them and beside it, and tells how many nodes.
    fn holds(bounds: &[u64]) -> usize {
        let mut tree = Tree::new();
        let pieces: Vec<_> = std::iter::once(&0)
            .chain(bounds)
            .enumerate()
            .map(|(rule, begins)| (*begins, says(rule)))
            .collect();
        let top = tree.grow(Part::Lower, Slots::ByBounds, &pieces).unwrap();
        let ask = |part: u64| {
            let mut node = top;
            let mut depth = 0;
            while node.verdict().is_none() {
                depth += 1;
                assert!(depth <= ADDRESS_DEPTH);
                node = tree.read(node.way(part)).unwrap();
            }
            node
        };
        for (rule, (begins, _)) in pieces.iter().enumerate() {
            let ends = pieces.get(rule + 1).map_or(u64::MAX, |(next, _)| next - 1);
            for part in [*begins, ends, begins + (ends - begins) / 2] {
                assert_eq!(ask(part), says(rule), "{part:x} of {bounds:x?}");
            }
        }
        tree.nodes.len() - HEAD
    }

    #[test]
    fn bounds_are_where_they_were_put() {
        holds(&[]);
        holds(&[1]);
        holds(&[u64::MAX]);
        holds(&[1, u64::MAX]);
        holds(&[1 << 63, u64::MAX - 1, u64::MAX]);
        holds(&[7, 8]);
        holds(
            &(1..2000)
                .map(|bound| bound * bound * bound)
                .collect::<Vec<_>>(),
        );
        holds(
            &(1..100)
                .map(|bound| u64::MAX - 100 + bound)
                .collect::<Vec<_>>(),
        );
    }

    #[test]
    fn what_comes_out_even_takes_a_slot_for_each() {
        assert_eq!(holds(&[0x7f00_0000, 0x8000_0000]), 3);
        assert_eq!(holds(&[0xa000, 0xb000, 0xc000]), 4);
    }

    #[test]
    fn clusters_within_clusters_are_done_within_the_depth() {
        let powers: Vec<_> = (0..64).map(|power| 1 << power).collect();
        holds(&powers);
        let mut pairs: Vec<u64> = (3..60)
            .flat_map(|power| [(1 << power) + 1, 3 << power])
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        holds(&pairs);
    }

    #[test]
    fn clusters_cost_nodes_where_they_are_alone() {
        let spread = (1..2000).map(|bound: u64| (bound << 40) + bound.pow(3) % 1009);
        let nested = (0..40).map(|power| (7 << 50) + (1 << power));
        let mut both: Vec<u64> = spread.clone().chain(nested).collect();
        both.sort_unstable();
        both.dedup();
        let (alone, with) = (holds(&spread.collect::<Vec<_>>()), holds(&both));
        assert!(with < 2 * alone, "{alone} {with}");
    }

    #[test]
    fn what_is_cut_alike_is_there_once() {
        let prefixes = |rule: fn(usize) -> usize| {
            let pieces: Vec<_> = (1..2000)
                .flat_map(|prefix: u64| {
                    let begins = prefix * 0x10_0000 + (prefix % 7) * 0x1_0000;
                    let says = says(rule(usize::try_from(prefix).unwrap()));
                    [(begins, says), (begins + 0x100, Node::NOWHERE)]
                })
                .collect();
            let pieces = [vec![(0, Node::NOWHERE)], pieces].concat();
            let mut tree = Tree::new();
            assert!(tree.grow(Part::Lower, Slots::ByBounds, &pieces).is_ok());
            tree.nodes.len()
        };
        let (alike, unlike) = (prefixes(|_| 1), prefixes(|prefix| prefix));
        assert!(alike * 3 < unlike * 2, "{alike} {unlike}");
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error() {
        let pieces: Vec<_> = (0..=MAX_NODES as u64)
            .map(|begins| (begins * 3, says(usize::try_from(begins).unwrap())))
            .collect();
        let mut tree = Tree::new();
        let grown = tree.grow(Part::Lower, Slots::ByBounds, &pieces);
        assert_eq!(
            grown.err().map(|too_many| too_many.pieces),
            Some(pieces.len())
        );
    }
}
