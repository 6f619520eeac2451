//! What the maps of the policy hold: for each prefix an entry, and for entries that depend on protocol
//! and port a decision tree.

use crate::{Action, decide::NO_RULE};

/// What a rule says, and which rule it is, in one word: nothing in the kernel is read by halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Verdict(u32);

/// Set in a verdict that allows. Zeroed memory refuses.
const ALLOW: u32 = 1 << 31;

impl Verdict {
    /// The verdict of a rule, by its number.
    #[must_use]
    pub const fn new(action: Action, rule: u32) -> Self {
        match action {
            Action::Allow => Self(rule | ALLOW),
            Action::Deny => Self(rule & !ALLOW),
        }
    }

    /// What it says.
    #[must_use]
    #[inline(always)]
    pub const fn action(self) -> Action {
        if self.0 & ALLOW != 0 {
            Action::Allow
        } else {
            Action::Deny
        }
    }

    /// The number of the rule.
    #[must_use]
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 & !ALLOW
    }
}

/// How many rules a policy can have: their numbers are below this. Each has a counter in the kernel.
pub const MAX_RULES: u32 = 1024;

/// An end of a tree: there is no node with this index.
pub const END: u32 = u32::MAX;

/// How many nodes are one below the other in a tree at most: a balanced one has 65,535 then.
pub const MAX_DEPTH: usize = 16;

/// A node of a decision tree: whether a query lies at or above a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Node {
    /// The boundary, a [`crate::decide::query`].
    pub from: u32,
    /// The verdict from there on, up to the next boundary above.
    pub verdict: Verdict,
    /// The index of the node to go on with below the boundary, or [`END`].
    pub below: u32,
    /// The index of the node to go on with at the boundary and above, or [`END`].
    pub above: u32,
}

const _: () = assert!(size_of::<Node>() == 16 && align_of::<Node>() == 4);

/// In [`Entry::flags`]: the prefix is of addresses that name many, broadcast and multicast.
pub const MANY: u32 = 1;
/// In [`Entry::flags`]: the prefix is the host.
pub const HOST: u32 = 2;
/// In [`Entry::flags`], in that of all entries alike: nothing is refused, and all that would be is told.
pub const MONITOR: u32 = 4;

/// The value in the policy map: what applies to one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Entry {
    /// [`MANY`], [`HOST`], [`MONITOR`].
    pub flags: u32,
    /// The verdict for queries below all boundaries of the tree: for all, where there is none.
    pub verdict: Verdict,
    /// Which of the maps of trees its tree is in.
    pub half: u32,
    /// The index of the first node of its tree, or [`END`].
    pub root: u32,
}

const _: () = assert!(size_of::<Entry>() == 16 && align_of::<Entry>() == 4);

impl Entry {
    /// Denies everything, by no rule.
    pub const EMPTY: Self = Self {
        flags: 0,
        verdict: Verdict::new(Action::Deny, NO_RULE & !ALLOW),
        half: 0,
        root: END,
    };

    /// Whether it has a flag.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Entry {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Node {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_its_action_and_rule() {
        for action in [Action::Allow, Action::Deny] {
            for rule in [0, 7, MAX_RULES - 1] {
                let verdict = Verdict::new(action, rule);
                assert_eq!((verdict.action(), verdict.rule()), (action, rule));
            }
        }
    }

    #[test]
    fn zeroed_memory_refuses() {
        assert_eq!(Verdict(0).action(), Action::Deny);
    }
}
