//! The decision: what the entry of a destination says about one protocol and port.

use crate::entry::{END, Entry, MAX_DEPTH, Node};

/// The rule number in a decision that no rule gave: the policy had no entry, or a tree without an end.
pub const NO_RULE: u32 = u32::MAX >> 1;

/// The rule number of a refusal of a packet that could not be understood.
pub const UNPARSED: u32 = NO_RULE - 1;

/// The rule number of a refusal of a kind of socket.
pub const SOCKET_KIND: u32 = NO_RULE - 2;

/// The rule number of a refusal of a device.
pub const DEVICE: u32 = NO_RULE - 3;

/// The rule number of a refusal to let a socket broadcast.
pub const BROADCAST: u32 = NO_RULE - 4;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Action {
    /// Refuse. Zero, so that zeroed memory refuses.
    Deny = 0,
    /// Let through.
    Allow = 1,
}

/// An IP protocol number (`IPPROTO_*`), or [`Protocol::ANY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Protocol(pub u32);

impl Protocol {
    /// Every protocol, in rules. IPPROTO_IP (0) never is the protocol of a packet.
    pub const ANY: Self = Self(0);
    /// IPPROTO_ICMP.
    pub const ICMP: Self = Self(1);
    /// IPPROTO_TCP.
    pub const TCP: Self = Self(6);
    /// IPPROTO_UDP.
    pub const UDP: Self = Self(17);
    /// IPPROTO_DCCP.
    pub const DCCP: Self = Self(33);
    /// IPPROTO_ICMPV6.
    pub const ICMPV6: Self = Self(58);
    /// IPPROTO_SCTP.
    pub const SCTP: Self = Self(132);
    /// IPPROTO_UDPLITE.
    pub const UDP_LITE: Self = Self(136);
    /// IPPROTO_MPTCP: the number that a socket has. Its packets are TCP's.
    pub const MPTCP: Self = Self(262);
}

/// What a tree is asked: the protocol in the upper half, the port in the lower. MPTCP is TCP.
#[must_use]
#[inline(always)]
pub const fn query(protocol: Protocol, port: u16) -> u32 {
    let number = if protocol.0 == Protocol::MPTCP.0 {
        Protocol::TCP.0
    } else {
        protocol.0
    };
    (number << 16) | port as u32
}

/// The nodes of the trees.
pub trait Nodes {
    /// The node with an index, in one of the maps of trees; `None` if there is none.
    fn node(&self, half: u32, index: u32) -> Option<Node>;
}

/// What was decided, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether to let it through.
    pub action: Action,
    /// The number of the rule in the policy, or [`NO_RULE`].
    pub rule: u32,
}

const DENIED: Decision = Decision {
    action: Action::Deny,
    rule: NO_RULE,
};

/// Decides on one destination, given the entry of the longest prefix that holds its address: the last
/// boundary of its tree that is not above the query says what is to be done. With no entry, a node that
/// is not there, or a tree that does not end, it is denied.
#[must_use]
#[inline(always)]
pub fn decide(
    entry: Option<&Entry>,
    nodes: &impl Nodes,
    protocol: Protocol,
    port: u16,
) -> Decision {
    let Some(entry) = entry else { return DENIED };
    let query = query(protocol, port);
    let mut verdict = entry.verdict;
    let mut index = entry.root;
    let mut depth = 0;
    while index != END {
        if depth == MAX_DEPTH {
            return DENIED;
        }
        let Some(node) = nodes.node(entry.half, index) else {
            return DENIED;
        };
        if query >= node.from {
            verdict = node.verdict;
            index = node.above;
        } else {
            index = node.below;
        }
        depth += 1;
    }
    Decision {
        action: verdict.action(),
        rule: verdict.rule(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Verdict;

    struct Half<'a>(&'a [Node]);

    impl Nodes for Half<'_> {
        fn node(&self, half: u32, index: u32) -> Option<Node> {
            assert_eq!(half, 1);
            self.0.get(index as usize).copied()
        }
    }

    fn node(port: u16, action: Action, rule: u32, below: u32, above: u32) -> Node {
        Node {
            from: query(Protocol::UDP, port),
            verdict: Verdict::new(action, rule),
            below,
            above,
        }
    }

    fn entry(root: u32) -> Entry {
        Entry {
            verdict: Verdict::new(Action::Deny, 1),
            half: 1,
            root,
            ..Entry::EMPTY
        }
    }

    #[test]
    fn nothing_to_go_by_is_denied() {
        assert_eq!(decide(None, &Half(&[]), Protocol::TCP, 80), DENIED);
        assert_eq!(
            decide(Some(&Entry::EMPTY), &Half(&[]), Protocol::TCP, 80),
            DENIED
        );
    }

    #[test]
    fn the_last_boundary_that_is_not_above_decides() {
        // DNS in UDP, and nothing else.
        let nodes = [
            node(53, Action::Allow, 0, END, 1),
            node(54, Action::Deny, 2, END, END),
        ];
        let verdict = |protocol, port| {
            let decision = decide(Some(&entry(0)), &Half(&nodes), protocol, port);
            (decision.action, decision.rule)
        };
        assert_eq!(verdict(Protocol::UDP, 53), (Action::Allow, 0));
        assert_eq!(verdict(Protocol::UDP, 52), (Action::Deny, 1));
        assert_eq!(verdict(Protocol::UDP, 54), (Action::Deny, 2));
        assert_eq!(verdict(Protocol::TCP, 53), (Action::Deny, 1));
        assert_eq!(verdict(Protocol::SCTP, 53), (Action::Deny, 2));
    }

    #[test]
    fn a_node_that_is_not_there_denies() {
        let nodes = [node(0, Action::Allow, 0, 7, 7)];
        for protocol in [Protocol::TCP, Protocol::UDP] {
            assert_eq!(decide(Some(&entry(0)), &Half(&nodes), protocol, 1), DENIED);
        }
    }

    #[test]
    fn a_tree_without_an_end_denies() {
        let round = [node(0, Action::Allow, 0, 0, 0)];
        assert_eq!(
            decide(Some(&entry(0)), &Half(&round), Protocol::UDP, 1),
            DENIED
        );
    }

    #[test]
    fn mptcp_is_tcp() {
        assert_eq!(query(Protocol::MPTCP, 80), query(Protocol::TCP, 80));
        assert_ne!(query(Protocol::TCP, 80), query(Protocol::UDP, 80));
    }
}
