//! Policies as the programs read them: arrays of nodes.

use anyhow::{Context, Result};
use aya::maps::{Array, IterableMap, MapData, MapError};
use qfence_common::{
    Node, Nodes,
    tree::{Front, HEAD},
};

use super::fill::fill;

/// `BPF_F_INNER_MAP`: an array with this flag can replace one of another length (Linux 5.10).
pub(super) const INNER_MAP: u32 = 1 << 12;

pub(super) type Tree = Array<MapData, Node>;
pub(super) type FirstNodes = Array<MapData, Front>;

/// Makes the array of all nodes.
///
/// # Errors
/// If the kernel has no memory for it.
pub(super) fn whole(nodes: &[Node]) -> Result<Tree> {
    let length = u32::try_from(nodes.len().max(1)).context("the policy is too large")?;
    let tree = Tree::create(length, INNER_MAP).context("cannot make a policy map")?;
    let indices: Vec<u32> = (0..length).take(nodes.len()).collect();
    fill(IterableMap::map(&tree), &indices, nodes).context("cannot fill the policy map")?;
    Ok(tree)
}

/// Makes the array whose only value is the first nodes.
///
/// # Errors
/// As [`whole`].
pub(super) fn front(nodes: &[Node]) -> Result<FirstNodes> {
    let mut front = FirstNodes::create(1, 0).context("cannot make a policy map")?;
    front
        .set(0, Front::of(nodes), 0)
        .context("cannot fill the policy map")?;
    Ok(front)
}

/// Makes the nodes at the start of an array verdicts that deny: those at which look-ups begin, and the flags.
///
/// # Errors
/// If they cannot be written.
pub(super) fn refuse(mut tree: Tree) -> Result<(), MapError> {
    for index in 0..tree.len().min(u32::try_from(HEAD).unwrap_or(u32::MAX)) {
        tree.set(index, Node::NOWHERE, 0)?;
    }
    Ok(())
}

/// The same for an array whose only value is the first nodes.
///
/// # Errors
/// As [`refuse`].
pub(super) fn refuse_in_front(mut front: FirstNodes) -> Result<(), MapError> {
    front.set(0, Front::of(&[]), 0)
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
    fn read(&self, index: usize) -> Option<Node> {
        self.0.get(&u32::try_from(index).ok()?, 0).ok()
    }
}
