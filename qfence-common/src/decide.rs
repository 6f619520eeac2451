//! The decision: which clause of a destination's entry applies, and what it says.

/// How many clauses one entry of the policy map can hold.
///
/// Three rules make up the policy today, and one that names two protocols takes two clauses.
pub const MAX_CLAUSES: usize = 4;

/// The rule number in a verdict that no rule gave: the policy had no entry, or none that matched.
pub const NO_RULE: u32 = u32::MAX;

/// The rule number of a refusal of a packet that could not be understood.
pub const UNPARSED: u32 = u32::MAX - 1;

/// The rule number of a refusal of a kind of socket.
pub const SOCKET_KIND: u32 = u32::MAX - 2;

/// The rule number of a refusal to let a socket broadcast.
pub const BROADCAST: u32 = u32::MAX - 4;

/// The rule number of a refusal of a device.
pub const DEVICE: u32 = u32::MAX - 3;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Refuse. Zero, so that zeroed memory refuses.
    Deny = 0,
    /// Let through.
    Allow = 1,
}

/// An IP protocol number (`IPPROTO_*`), or [`Protocol::ANY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Protocol(pub u32);

impl Protocol {
    /// Matches every protocol. IPPROTO_IP (0) never is the protocol of a packet.
    pub const ANY: Self = Self(0);
    /// IPPROTO_ICMP.
    pub const ICMP: Self = Self(1);
    /// IPPROTO_TCP.
    pub const TCP: Self = Self(6);
    /// IPPROTO_UDP.
    pub const UDP: Self = Self(17);
    /// IPPROTO_ICMPV6.
    pub const ICMPV6: Self = Self(58);
}

/// One condition on protocol and port, and the action it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Clause {
    /// An [`Action`]; whatever is not `Allow` denies.
    pub action: u32,
    /// The rule this clause was compiled from: its index in the policy.
    pub rule: u32,
    /// The protocol it applies to.
    pub protocol: Protocol,
    /// The first port it applies to, in host order.
    pub port_first: u16,
    /// The last port it applies to, in host order, inclusive.
    pub port_last: u16,
}

const _: () = assert!(size_of::<Clause>() == 16 && align_of::<Clause>() == 4);

impl Clause {
    /// Fills the unused places of an entry.
    pub const EMPTY: Self = Self {
        action: Action::Deny as u32,
        rule: NO_RULE,
        protocol: Protocol::ANY,
        port_first: 0,
        port_last: 0,
    };

    /// Whether it applies to every protocol and port, so that nothing after it can.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.protocol.0 == Protocol::ANY.0 && self.port_first == 0 && self.port_last == u16::MAX
    }

    #[inline(always)]
    const fn matches(&self, protocol: Protocol, port: u16) -> bool {
        (self.protocol.0 == Protocol::ANY.0 || self.protocol.0 == protocol.0)
            && self.port_first <= port
            && port <= self.port_last
    }
}

/// The value in the policy map: for one prefix, the clauses that apply to it, first match first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// How many of `clauses` are in use.
    pub len: u32,
    /// Whether the prefix is of addresses that name many: not 0 for broadcast and multicast.
    pub many: u32,
    /// The clauses; those past `len` are [`Clause::EMPTY`].
    pub clauses: [Clause; MAX_CLAUSES],
}

const _: () = assert!(size_of::<Entry>() == 8 + 16 * MAX_CLAUSES && align_of::<Entry>() == 4);

impl Entry {
    /// No clause: denies everything.
    pub const EMPTY: Self = Self {
        len: 0,
        many: 0,
        clauses: [Clause::EMPTY; MAX_CLAUSES],
    };
}

/// What was decided, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether to let it through.
    pub action: Action,
    /// The index of the rule in the policy, or [`NO_RULE`].
    pub rule: u32,
}

/// Decides on one destination, given the entry of the longest prefix that holds its address.
///
/// The first clause that matches wins; with no entry, or none that matches, it is denied.
#[must_use]
#[inline(always)]
pub fn decide(entry: Option<&Entry>, protocol: Protocol, port: u16) -> Decision {
    const DENIED: Decision = Decision {
        action: Action::Deny,
        rule: NO_RULE,
    };
    let Some(entry) = entry else { return DENIED };
    let mut index = 0;
    while index < MAX_CLAUSES && index < entry.len as usize {
        let clause = &entry.clauses[index];
        if clause.matches(protocol, port) {
            let action = if clause.action == Action::Allow as u32 {
                Action::Allow
            } else {
                Action::Deny
            };
            return Decision {
                action,
                rule: clause.rule,
            };
        }
        index += 1;
    }
    DENIED
}

#[cfg(feature = "user")]
// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
unsafe impl aya::Pod for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(action: Action, rule: u32, protocol: Protocol, ports: (u16, u16)) -> Clause {
        Clause {
            action: action as u32,
            rule,
            protocol,
            port_first: ports.0,
            port_last: ports.1,
        }
    }

    fn entry(clauses: &[Clause]) -> Entry {
        let mut entry = Entry::EMPTY;
        entry.len = u32::try_from(clauses.len()).unwrap();
        entry.clauses[..clauses.len()].copy_from_slice(clauses);
        entry
    }

    const ALL: (u16, u16) = (0, u16::MAX);

    #[test]
    fn nothing_to_go_by_is_denied() {
        assert_eq!(decide(None, Protocol::TCP, 80).action, Action::Deny);
        assert_eq!(
            decide(Some(&Entry::EMPTY), Protocol::TCP, 80).action,
            Action::Deny
        );
    }

    #[test]
    fn the_first_clause_that_matches_wins() {
        let dns = entry(&[
            clause(Action::Allow, 0, Protocol::UDP, (53, 53)),
            clause(Action::Deny, 1, Protocol::ANY, ALL),
            clause(Action::Allow, 2, Protocol::ANY, ALL),
        ]);
        let verdict = |protocol, port| {
            let decision = decide(Some(&dns), protocol, port);
            (decision.action, decision.rule)
        };
        assert_eq!(verdict(Protocol::UDP, 53), (Action::Allow, 0));
        assert_eq!(verdict(Protocol::UDP, 52), (Action::Deny, 1));
        assert_eq!(verdict(Protocol::UDP, 54), (Action::Deny, 1));
        assert_eq!(verdict(Protocol::TCP, 53), (Action::Deny, 1));
    }

    #[test]
    fn no_match_is_denied_by_no_rule() {
        let only = entry(&[clause(Action::Allow, 0, Protocol::TCP, (80, 80))]);
        assert_eq!(
            decide(Some(&only), Protocol::TCP, 81),
            Decision {
                action: Action::Deny,
                rule: NO_RULE
            }
        );
    }

    #[test]
    fn an_unknown_action_denies() {
        let mut bad = clause(Action::Allow, 0, Protocol::ANY, ALL);
        bad.action = 7;
        assert_eq!(
            decide(Some(&entry(&[bad])), Protocol::TCP, 1).action,
            Action::Deny
        );
    }

    #[test]
    fn a_length_past_the_array_is_not_followed() {
        let mut long = entry(&[clause(Action::Allow, 0, Protocol::TCP, (1, 1))]);
        long.len = u32::MAX;
        long.clauses[1..].fill(clause(Action::Allow, 0, Protocol::TCP, (1, 1)));
        assert_eq!(decide(Some(&long), Protocol::TCP, 2).action, Action::Deny);
    }

    #[test]
    fn only_a_clause_for_everything_is_final() {
        assert!(clause(Action::Deny, 0, Protocol::ANY, ALL).is_final());
        assert!(!clause(Action::Deny, 0, Protocol::TCP, ALL).is_final());
        assert!(!clause(Action::Deny, 0, Protocol::ANY, (1, u16::MAX)).is_final());
    }
}
