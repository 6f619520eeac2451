//! What is decided on a destination, in one word: nothing in the kernel is read by halves.

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Action {
    /// Refuse. Zero, so that zeroed memory refuses.
    Deny = 0,
    /// Let through.
    Allow = 1,
}

/// How many rules a policy can have: their numbers are below this. Each has a counter in the kernel.
pub const MAX_RULES: u32 = 1024;

/// The rule number of a verdict that no rule gave: there was no policy, or no end to its tree.
pub const NO_RULE: u32 = RULE;

/// The rule number of a refusal of a packet that could not be understood.
pub const UNPARSED: u32 = NO_RULE - 1;

/// The rule number of a refusal of a kind of socket.
pub const SOCKET_KIND: u32 = NO_RULE - 2;

/// The rule number of a refusal of a device.
pub const DEVICE: u32 = NO_RULE - 3;

/// The rule number of a refusal to let a socket broadcast.
pub const BROADCAST: u32 = NO_RULE - 4;

/// The rule number of a refusal of a socket in a network namespace that was made outside the fence.
pub const FOREIGN_NETNS: u32 = NO_RULE - 5;

/// The rule number of a refusal to let a socket broadcast while nobody follows the host's addresses: which of them
/// are broadcast addresses is not known then.
pub const UNFOLLOWED: u32 = NO_RULE - 6;

/// The rule number of a refusal of a connection whose owner could not be noted, for want of memory.
pub const UNOWNED: u32 = NO_RULE - 7;

/// In a verdict: the address is the host's.
pub const HOST: u32 = 1 << 29;
/// In a verdict: the address names many, by broadcast or multicast.
pub const MANY: u32 = 1 << 28;
/// In a verdict, in all of a policy alike: nothing is refused, and all that would be is told.
pub const MONITOR: u32 = 1 << 27;

/// Set in a verdict that allows. Zeroed memory refuses.
const ALLOW: u32 = 1 << 30;
/// Where the number of the rule is.
const RULE: u32 = (1 << 24) - 1;

/// What a rule says, which rule it is, and what the destination's address is. The highest bit is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Verdict(u32);

impl Verdict {
    /// Where there is nothing to decide by: denied.
    pub const NONE: Self = Self::new(Action::Deny, NO_RULE);

    /// The verdict of a rule, by its number.
    #[must_use]
    pub const fn new(action: Action, rule: u32) -> Self {
        match action {
            Action::Allow => Self(rule & RULE | ALLOW),
            Action::Deny => Self(rule & RULE),
        }
    }

    /// The same, with those of [`HOST`], [`MANY`] and [`MONITOR`] that are set in `flags`.
    #[must_use]
    pub const fn with(self, flags: u32) -> Self {
        Self(self.0 | flags & (HOST | MANY | MONITOR))
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

    /// The number of the rule in the policy, or [`NO_RULE`].
    #[must_use]
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 & RULE
    }

    /// Whether it has one of the flags.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag & (HOST | MANY | MONITOR) != 0
    }

    /// All of it, as a number.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// That of which this is the number.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_its_action_rule_and_flags() {
        for action in [Action::Allow, Action::Deny] {
            for rule in [0, 7, MAX_RULES - 1, UNOWNED, NO_RULE] {
                for flags in [0, HOST, MANY, MONITOR, HOST | MONITOR] {
                    let verdict = Verdict::new(action, rule).with(flags);
                    assert_eq!((verdict.action(), verdict.rule()), (action, rule));
                    for flag in [HOST, MANY, MONITOR] {
                        assert_eq!(verdict.has(flag), flags & flag != 0);
                    }
                    assert_eq!(verdict.bits() >> 31, 0);
                }
            }
        }
    }

    #[test]
    fn zeroed_memory_refuses() {
        assert_eq!(Verdict::from_bits(0).action(), Action::Deny);
    }
}
