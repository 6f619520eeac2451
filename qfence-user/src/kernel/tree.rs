//! Policies as the programs read them: arrays of nodes.

use anyhow::{Context, Result};
use aya::maps::{Array, IterableMap, MapData};
use qfence_common::{
    Node, Nodes,
    tree::{FRONT, FRONT_END, HEAD},
};

use super::fill::fill;

/// `BPF_F_INNER_MAP`: an array with this flag can replace one of another length (Linux 5.10).
pub(super) const INNER_MAP: u32 = 1 << 12;

pub(super) type Tree = Array<MapData, Node>;

/// Makes the array of all nodes.
///
/// # Errors
/// If the kernel has no memory for it.
pub(super) fn whole(nodes: &[Node]) -> Result<Tree> {
    make(nodes, nodes.len().max(1), INNER_MAP)
}

/// Makes the array of the first nodes, whose length is the same for all policies.
///
/// # Errors
/// As [`whole`].
pub(super) fn front(nodes: &[Node]) -> Result<Tree> {
    let mut front = vec![Node::NOWHERE; FRONT];
    let first = nodes.len().min(FRONT - 1);
    front[..first].copy_from_slice(&nodes[..first]);
    front[FRONT - 1] = FRONT_END;
    make(&front, FRONT, 0)
}

/// Makes an array of `length` nodes that begins with these.
fn make(nodes: &[Node], length: usize, flags: u32) -> Result<Tree> {
    let length = u32::try_from(length).context("the policy is too large")?;
    let tree = Tree::create(length, flags).context("cannot make a policy map")?;
    let indices: Vec<u32> = (0..length).take(nodes.len()).collect();
    fill(IterableMap::map(&tree), &indices, nodes).context("cannot fill the policy map")?;
    Ok(tree)
}

/// A policy that is or was in force.
pub struct InForce(Tree);

impl InForce {
    pub(super) const fn new(tree: Tree) -> Self {
        Self(tree)
    }

    /// Whether it is complete: it has a verdict for every address.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        usize::try_from(self.0.len()).is_ok_and(|nodes| nodes >= HEAD)
    }
}

impl Nodes for InForce {
    fn read(&self, index: u32) -> Option<Node> {
        self.0.get(&index, 0).ok()
    }
}
