use qfence_common::{
    Action, Node, Nodes, Verdict,
    tree::{ADDRESS_DEPTH, HEAD, MAX_NODES, Part},
};

use crate::compile::{cut::Slots, tree::Tree};

impl Nodes for Tree {
    fn read(&self, index: usize) -> Option<Node> {
        self.nodes.get(index).copied()
    }
}

fn step(rule: usize) -> Node {
    Node::of_verdict(Verdict::new(Action::Allow, u32::try_from(rule).unwrap()))
}

/// Grows a tree of bounds of the lower half, looks up each bound and its neighbours, and returns the number of nodes.
fn holds(bounds: &[u64]) -> usize {
    let mut tree = Tree::new();
    let pieces: Vec<_> = std::iter::once(&0)
        .chain(bounds)
        .enumerate()
        .map(|(rule, begins)| (*begins, step(rule)))
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
            assert_eq!(ask(part), step(rule), "{part:x} of {bounds:x?}");
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
                let step = step(rule(usize::try_from(prefix).unwrap()));
                [(begins, step), (begins + 0x100, Node::NOWHERE)]
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
        .map(|begins| (begins * 3, step(usize::try_from(begins).unwrap())))
        .collect();
    let mut tree = Tree::new();
    let grown = tree.grow(Part::Lower, Slots::ByBounds, &pieces);
    assert_eq!(
        grown.err().map(|too_many| too_many.pieces),
        Some(pieces.len())
    );
}
