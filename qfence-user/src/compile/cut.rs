//! Divides the range of a tree node into slots.

use qfence_common::{Node, tree::Part};

/// The least number of slots of a node, unless slots that match all bounds exactly need fewer.
const LEAST_SLOTS: u64 = 2;

/// The least number of slots of a root. All look-ups begin there, and most addresses that a policy does not name get
/// their verdict at the root.
const ROOT_SLOTS: u64 = 256;

/// One in this many bounds, on either side, may lie outside of the range that is divided.
const FAR: usize = 16;

/// The most bits that a node below the root distinguishes, if nested clusters of bounds are divided by depth.
pub(super) const FEW_BITS: u32 = 8;

/// How the number of slots of a node is chosen.
#[derive(Clone, Copy)]
pub(super) enum Slots {
    /// As [`Slots::ByBounds`], but at least [`ROOT_SLOTS`].
    OfRoot,
    /// About one for each prefix or port in the densest part. This takes the fewest nodes, unless bounds form
    /// clusters within clusters.
    ByBounds,
    /// As many as needed for the nodes below to stay within the maximum depth, wherever the bounds are.
    ByDepth,
}

impl Slots {
    /// The choice for the nodes below.
    pub(super) fn below(self) -> Self {
        match self {
            Self::OfRoot | Self::ByBounds => Self::ByBounds,
            Self::ByDepth => Self::ByDepth,
        }
    }
}

/// How many bits each node must distinguish to divide a range of this length completely within `depth` nodes.
pub(super) fn bits_a_node(range: u64, depth: usize) -> u32 {
    let bits = u64::BITS - range.leading_zeros();
    bits.div_ceil(u32::try_from(depth).unwrap_or(1).max(1))
}

/// A range divided into slots: the index of the bound at which it begins, the length of a slot as a power of two, and
/// the number of slots.
pub(super) struct Cut {
    pub(super) from: usize,
    pub(super) length: u32,
    pub(super) count: usize,
}

impl Cut {
    pub(super) fn new(part: Part, bounds: &[(u64, Node)], depth: usize, slots: Slots) -> Self {
        let all = Self::of(part, bounds, depth, slots);
        let aside = bounds.len() / FAR;
        if matches!(slots, Slots::ByDepth) || aside == 0 {
            return all;
        }
        // If most bounds are close together, slots that cover all bounds would each contain many.
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

    /// Divides the range from the first bound to the last.
    fn of(part: Part, bounds: &[(u64, Node)], depth: usize, slots: Slots) -> Self {
        // A prefix has two bounds. Ports usually have neighbours that share a bound.
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
            // The nodes below can divide the remaining bits.
            Slots::ByDepth => most.max(1 << bits_a_node(range, depth)),
        };
        let count = |length: u32| (u128::from(range)).div_ceil(1 << length);
        let short = (0..u64::BITS).find(|length| count(*length) <= u128::from(most));
        // If all bounds are multiples of a length, shorter slots have no advantage.
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
