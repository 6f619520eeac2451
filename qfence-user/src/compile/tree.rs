//! Grows the tree of a policy: a B-tree for each part of a destination, its leaves the roots of the next.

use qfence_common::{
    Node, Path,
    tree::{ADDRESS_DEPTH, MAX_NODES, PORT_DEPTH, Part, ROOTS, Step, WAYS, root},
};

use super::intervals::{Intervals, split, v4_of, without_v4};

/// What is told apart is more than a tree of the greatest depth has leaves for: how much it is, and how
/// much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) pieces: usize,
    pub(super) fit: usize,
}

/// A tree that grows. Its first nodes are its roots.
pub(super) struct Tree(Vec<Node>);

impl Tree {
    pub(super) fn new() -> Self {
        Self(vec![Node::filled(&[]); ROOTS])
    }

    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.0
    }

    /// Grows what looks at protocol and port, from where each piece begins.
    pub(super) fn grow_ports(&mut self, pieces: &[(u64, Step)]) -> Result<Step, TooMany> {
        self.grow(Part::Port, pieces)
    }

    /// Grows what looks at the addresses of a path.
    pub(super) fn grow_addresses(
        &mut self,
        path: Path,
        intervals: &Intervals,
    ) -> Result<(), TooMany> {
        let v4 = self.grow(Part::Lower, &v4_of(intervals))?;
        self.plant(path, true, Part::Lower, v4);
        let mut upper = Vec::new();
        for (half, lower) in split(&without_v4(intervals)) {
            upper.push((half, self.grow(Part::Lower, &lower)?));
        }
        let v6 = self.grow(Part::Upper, &upper)?;
        self.plant(path, false, Part::Upper, v6);
        Ok(())
    }

    /// Puts at the root of a path and family what has grown for it.
    fn plant(&mut self, path: Path, is_v4: bool, part: Part, grown: Step) {
        let node = match self.0.get(grown.index() as usize) {
            // Its node is the root then: it takes one step less.
            Some(node) if grown == Step::to_node(part, grown.index()) => *node,
            _ => Node::filled(&[(0, grown)]),
        };
        self.0[root(path, is_v4).index() as usize] = node;
    }

    /// Grows what looks at one part, from where each piece begins, the first at 0, to what it leads to.
    fn grow(&mut self, part: Part, pieces: &[(u64, Step)]) -> Result<Step, TooMany> {
        let depth = match part {
            Part::Upper | Part::Lower => ADDRESS_DEPTH,
            Part::Port => PORT_DEPTH,
        };
        let fit = WAYS.pow(u32::try_from(depth).unwrap_or(0));
        let too_many = TooMany {
            pieces: pieces.len(),
            fit,
        };
        if pieces.len() > fit {
            return Err(too_many);
        }
        let mut level = pieces.to_vec();
        while level.len() > 1 {
            let nodes = level.chunks(WAYS).map(|ways| match ways {
                [one] => Ok(*one),
                _ => {
                    let index = u32::try_from(self.0.len())
                        .ok()
                        .filter(|index| *index < MAX_NODES)
                        .ok_or(too_many)?;
                    self.0.push(Node::filled(ways));
                    Ok((ways[0].0, Step::to_node(part, index)))
                }
            });
            level = nodes.collect::<Result<_, _>>()?;
        }
        Ok(level.first().map_or(Node::NOWHERE, |(_, step)| *step))
    }
}
