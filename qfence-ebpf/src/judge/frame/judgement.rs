//! What becomes of a frame.

use qfence_common::{
    Action, Verdict,
    verdict::{FRAME_KIND, MONITOR},
};

use crate::judge::policy::monitors;

/// What happens with a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Way {
    /// It is dropped.
    Refused = 0,
    /// It goes on. If it reaches the host nevertheless, it is dropped there.
    Elsewhere = 1,
    /// It goes on, and may reach the host.
    Anywhere = 2,
    /// As [`Way::Anywhere`], although the policy denies it, because the policy is only monitored.
    Monitored = 3,
}

/// The result of judging a frame.
#[derive(Clone, Copy)]
pub(crate) struct FrameJudgement {
    pub(crate) way: Way,
    pub(crate) verdict: Verdict,
    /// Whether a refusal may be answered, as far as the destination is concerned.
    pub(crate) may_be_answered: bool,
    /// Whether it counts as a decision.
    pub(crate) is_decision: bool,
    /// Whether it is counted already, as traffic that goes on.
    pub(crate) is_counted: bool,
    /// Whether it is an IP packet of which no checksum is left to a device.
    pub(crate) is_complete: bool,
}

const WAY_SHIFT: u32 = 32;
const MAY_BE_ANSWERED: u64 = 1 << 40;
const IS_DECISION: u64 = 1 << 41;

impl FrameJudgement {
    /// Packs it into one word, the return value of a global function, without `is_complete` and `is_counted`.
    #[inline(always)]
    pub(super) const fn pack(self) -> u64 {
        let answered = if self.may_be_answered {
            MAY_BE_ANSWERED
        } else {
            0
        };
        let decision = if self.is_decision { IS_DECISION } else { 0 };
        answered | decision | (self.way as u64) << WAY_SHIFT | self.verdict.bits() as u64
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it")]
    pub(crate) const fn unpack(word: u64) -> Self {
        Self {
            way: match (word >> WAY_SHIFT) as u8 {
                1 => Way::Elsewhere,
                2 => Way::Anywhere,
                3 => Way::Monitored,
                _ => Way::Refused,
            },
            verdict: Verdict::from_bits(word as u32),
            may_be_answered: word & MAY_BE_ANSWERED != 0,
            is_decision: word & IS_DECISION != 0,
            is_counted: false,
            is_complete: false,
        }
    }

    /// A refusal for a reason other than the policy's rules. Nothing answers it.
    #[inline(always)]
    pub(crate) fn against(reason: u32) -> Self {
        let (way, flags) = if monitors() {
            (Way::Monitored, MONITOR)
        } else {
            (Way::Refused, 0)
        };
        Self {
            way,
            verdict: Verdict::new(Action::Deny, reason).with(flags),
            may_be_answered: false,
            is_decision: true,
            is_counted: false,
            is_complete: false,
        }
    }

    /// A refusal of a frame by a device that is none of the fence's. Monitor mode changes nothing.
    #[inline(always)]
    pub(crate) const fn of_unknown_device() -> Self {
        Self {
            way: Way::Refused,
            verdict: Verdict::new(Action::Deny, FRAME_KIND),
            may_be_answered: false,
            is_decision: true,
            is_counted: false,
            is_complete: false,
        }
    }

    /// What goes on whatever the policy says, by an exception with this number.
    #[inline(always)]
    pub(super) const fn by_exception(way: Way, number: u32) -> Self {
        Self {
            way,
            verdict: Verdict::new(Action::Allow, number),
            may_be_answered: false,
            is_decision: true,
            is_counted: false,
            is_complete: false,
        }
    }
}

/// The rule number of what goes on without a rule, such as neighbour discovery.
pub(super) const NO_RULE: u32 = qfence_common::verdict::NO_RULE;
