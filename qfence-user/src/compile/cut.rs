//! Into which slots a node of the tree cuts its range.

use qfence_common::{Node, tree::Part};

/// The slots that a node has at least, if what it cuts does not come out even before.
const LEAST_SLOTS: u64 = 2;

/// The same for a root, where all look-ups begin: most of what a policy that names a few prefixes does not name
/// is told there.
const ROOT_SLOTS: u64 = 256;

/// Of how many bounds one on either side may lie apart from the others.
const FAR: usize = 16;

/// How many bits a node tells apart at most where clusters within clusters are cut by depth, if that can be
/// done below the root.
pub(super) const FEW_BITS: u32 = 8;

/// How many slots a node is cut into.
#[derive(Clone, Copy)]
pub(super) enum Slots {
    /// As the next, but [`ROOT_SLOTS`] at least.
    OfRoot,
    /// About one for each prefix or port, where most of them lie: the fewest nodes, unless bounds lie in clusters within clusters.
    ByBounds,
    /// As many as it takes for the nodes below to be done within the greatest depth, wherever bounds lie.
    ByDepth,
}

impl Slots {
    /// Those of the nodes below.
    pub(super) fn below(self) -> Self {
        match self {
            Self::OfRoot | Self::ByBounds => Self::ByBounds,
            Self::ByDepth => Self::ByDepth,
        }
    }
}

/// Of how many bits each node has to tell apart the values, that a range of this length is cut whole at that depth.
pub(super) fn bits_a_node(range: u64, depth: usize) -> u32 {
    let bits = u64::BITS - range.leading_zeros();
    bits.div_ceil(u32::try_from(depth).unwrap_or(1).max(1))
}

/// Which range is cut into slots: from which bound on, how long a slot is, as a power of two, and how many.
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
