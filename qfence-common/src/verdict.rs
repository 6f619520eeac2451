//! The verdict on a destination, packed into one word, so that the kernel never reads half of one.

/// The action of a rule on the destinations that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Action {
    /// Deny. Zero, so that zeroed memory denies.
    Deny = 0,
    /// Allow.
    Allow = 1,
}

/// The maximum number of rules of a policy; rule numbers are below it. Each rule has a counter in the kernel.
pub const MAX_RULES: u32 = 1024;

/// The rule number of a verdict without a rule: there was no policy, or its tree was incomplete.
pub const NO_RULE: u32 = RULE;

/// The rule number of a refusal of a packet that could not be parsed.
pub const UNPARSED: u32 = NO_RULE - 1;

/// The rule number of a refusal of a socket because of its type or protocol.
pub const SOCKET_KIND: u32 = NO_RULE - 2;

/// The rule number of a refusal of a device.
pub const DEVICE: u32 = NO_RULE - 3;

/// The rule number of a refusal of SO_BROADCAST.
pub const BROADCAST: u32 = NO_RULE - 4;

/// The rule number of a refusal of a socket in a network namespace that was made outside the fence.
pub const FOREIGN_NETNS: u32 = NO_RULE - 5;

/// The rule number of a refusal of a broadcast socket's call while no process follows the host's addresses: the current
/// broadcast addresses are then unknown.
pub const UNFOLLOWED: u32 = NO_RULE - 6;

/// The rule number of a refusal of a connection whose owner could not be noted, for lack of memory.
pub const UNOWNED: u32 = NO_RULE - 7;

/// The rule number of a refusal of a manager's Unix socket.
pub const MANAGER: u32 = NO_RULE - 8;

/// The rule number of a refusal of another Unix socket.
pub const UNIX: u32 = NO_RULE - 9;

/// The rule number of a refusal of a local port.
pub const LISTENER: u32 = NO_RULE - 10;

/// The rule number of a refusal of a frame whose source is not the guest's MAC address.
pub const SPOOFED_MAC: u32 = NO_RULE - 11;

/// The rule number of a refusal of a frame because of its kind: its ethertype, a VLAN tag, or a message that only routers
/// send.
pub const FRAME_KIND: u32 = NO_RULE - 12;

/// The rule number of a refusal of a packet that reached the host although its frame led elsewhere.
pub const LOCAL_IN: u32 = NO_RULE - 13;

/// The number of the exception for DHCP, by which a frame is let through.
pub const DHCP: u32 = NO_RULE - 14;

/// The rule number of a refusal of a frame because the guest leaves a checksum to a device, and its place is none of a
/// checksum.
pub const CHECKSUM: u32 = NO_RULE - 15;

/// The rule number of a refusal of a query for a name that cannot be led to the resolver of the fence.
pub const UNLED: u32 = NO_RULE - 16;

/// In a verdict: the address is one of the host's.
pub const HOST: u32 = 1 << 29;
/// In a verdict: the address is a broadcast or multicast address.
pub const MANY: u32 = 1 << 28;
/// In a verdict, and then in every verdict of the policy: nothing is refused, and everything that would be is recorded.
pub const MONITOR: u32 = 1 << 27;

/// In a verdict that denies: a rule for the set `self` precedes the rule that decides. So the destination is allowed if
/// its listener is of the fence's own.
pub const SELF: u32 = 1 << 26;

/// In a verdict: the address leads to the workload's own network namespace, and its services there are allowed
/// (`attach --pod-loopback`). That overrules a verdict that denies, for sockets in that namespace.
pub const POD: u32 = 1 << 25;

/// In a verdict that denies an address which is not the host's: the policy has rules by name, so the address may be allowed
/// by one of them ([`crate::resolved`]). In the flags of a policy as a whole: it has such rules.
pub const NAMED: u32 = 1 << 24;

/// Set in a verdict that allows; zeroed memory denies.
const ALLOW: u32 = 1 << 30;
/// The bits of the rule number.
const RULE: u32 = (1 << 24) - 1;
/// With [`SELF`]: the bits of the number of the rule that decides, and of the rule for `self` above them. The tree's rules
/// have numbers that fit.
const SHORT_RULE: u32 = MAX_RULES - 1;
const SELF_SHIFT: u32 = MAX_RULES.ilog2();
const _: () = assert!(MAX_RULES.is_power_of_two() && SHORT_RULE << SELF_SHIFT <= RULE);
/// All flags.
const FLAGS: u32 = HOST | MANY | MONITOR | SELF | POD | NAMED;

/// An action, the number of its rule, and flags of the destination's address. The highest bit is never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Verdict(u32);

impl Verdict {
    /// The verdict without a policy or a node: denied, by no rule.
    pub const NONE: Self = Self::new(Action::Deny, NO_RULE);

    /// Makes the verdict of a rule, by its number.
    #[must_use]
    pub const fn new(action: Action, rule: u32) -> Self {
        match action {
            Action::Allow => Self(rule & RULE | ALLOW),
            Action::Deny => Self(rule & RULE),
        }
    }

    /// Adds those of [`HOST`], [`MANY`], [`MONITOR`], [`POD`] and [`NAMED`] that are set in `flags`. In the flags of a
    /// policy as a whole [`SELF`] may be set as well.
    #[must_use]
    pub const fn with(self, flags: u32) -> Self {
        Self(self.0 | flags & FLAGS)
    }

    /// Adds the number of a rule for `self` to a verdict that denies by a rule of the policy. Both numbers are below
    /// [`MAX_RULES`].
    #[must_use]
    pub const fn unless_self(self, rule: u32) -> Self {
        Self(self.0 & !RULE | self.0 & SHORT_RULE | (rule & SHORT_RULE) << SELF_SHIFT | SELF)
    }

    /// The action.
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
        if self.0 & SELF != 0 {
            self.0 & SHORT_RULE
        } else {
            self.0 & RULE
        }
    }

    /// The number of the rule for `self` that allows the destination if its listener is of the fence's own.
    #[must_use]
    #[inline(always)]
    pub const fn self_rule(self) -> Option<u32> {
        if self.0 & SELF != 0 {
            Some(self.0 >> SELF_SHIFT & SHORT_RULE)
        } else {
            None
        }
    }

    /// Whether the verdict has this flag.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag & FLAGS != 0
    }

    /// Returns the packed word.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Unpacks a word.
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
            for rule in [0, 7, MAX_RULES - 1, LISTENER, NO_RULE] {
                for flags in [0, HOST, MANY, MONITOR, POD, HOST | MONITOR | POD] {
                    let verdict = Verdict::new(action, rule).with(flags);
                    assert_eq!((verdict.action(), verdict.rule()), (action, rule));
                    for flag in [HOST, MANY, MONITOR, POD] {
                        assert_eq!(verdict.has(flag), flags & flag != 0);
                    }
                    assert_eq!(verdict.bits() >> 31, 0);
                }
            }
        }
    }

    #[test]
    fn a_verdict_has_the_rule_for_self_besides_its_own() {
        for rule in [0, 7, MAX_RULES - 1] {
            for self_rule in [0, 9, MAX_RULES - 1] {
                let plain = Verdict::new(Action::Deny, rule).with(HOST);
                let verdict = plain.unless_self(self_rule);
                assert_eq!((plain.self_rule(), plain.has(SELF)), (None, false));
                assert_eq!(verdict.self_rule(), Some(self_rule));
                assert_eq!((verdict.action(), verdict.rule()), (Action::Deny, rule));
                assert!(verdict.has(HOST) && verdict.has(SELF));
                assert!(!verdict.has(MANY) && !verdict.has(MONITOR));
            }
        }
    }

    #[test]
    fn zeroed_memory_refuses() {
        assert_eq!(Verdict::from_bits(0).action(), Action::Deny);
    }
}
