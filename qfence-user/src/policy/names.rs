//! The names of rules in logs.

use std::{collections::BTreeMap, sync::Arc};

use qfence_common::verdict;

use super::{Numbered, Policy};

/// The name of the reply exception.
pub const REPLIES: &str = "allow replies";

/// The name of the exception for DHCP of guests.
pub const DHCP: &str = "allow dhcp";

/// The name of the exception for the services of a workload in its own network namespace.
pub const POD: &str = "allow pod-loopback";

/// The name of the refusal of look-ups of what no rule by name can have: one label, or characters that names have not.
pub const UNNAMEABLE: &str = "deny-name";

/// The names of refusals without a rule, by their numbers.
pub const WITHOUT_RULE: [(u32, &str); 16] = [
    (verdict::SOCKET_KIND, "deny-raw"),
    (verdict::BROADCAST, "deny-broadcast"),
    (verdict::DEVICE, "deny-device"),
    (verdict::FOREIGN_NETNS, "deny-foreign-netns"),
    (verdict::UNFOLLOWED, "deny-unfollowed-broadcast"),
    (verdict::UNOWNED, "deny-unowned"),
    (verdict::MANAGER, "deny-manager"),
    (verdict::UNIX, "deny-unix"),
    (verdict::LISTENER, "deny-listener"),
    (verdict::SPOOFED_MAC, "deny-mac"),
    (verdict::FRAME_KIND, "deny-frame"),
    (verdict::CHECKSUM, "deny-checksum"),
    (verdict::LOCAL_IN, "deny-local-in"),
    (verdict::UNLED, "deny-unled"),
    (verdict::UNPARSED, "unparsed"),
    // The policy map had no verdict.
    (verdict::NO_RULE, "no-policy"),
];

/// The name of a rule in logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// The rule, or a word for a refusal without a rule.
    pub rule: Arc<str>,
    /// The comment in its profile.
    pub comment: Option<Arc<str>>,
}

/// The names of all rules that a fence has had, by rule number.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<u32, RuleName>);

impl Names {
    /// The names of a policy's rules.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let mut names = Self::default();
        names.learn(policy);
        names
    }

    /// Adds the rules of a policy that is published now. Old rules remain known, since events may still have their
    /// numbers.
    pub fn learn(&mut self, policy: &Policy) {
        for Numbered { number, rule } in policy.rules() {
            let name = RuleName {
                rule: rule.brief().into(),
                comment: rule.comment.map(Into::into),
            };
            self.0.insert(number, name);
        }
    }

    /// The name for a rule number in an event.
    #[must_use]
    pub fn name(&self, number: u32) -> RuleName {
        let without_rule = WITHOUT_RULE.into_iter();
        let mut words = without_rule.chain([(verdict::DHCP, DHCP)]);
        let word = match (words.find(|(of, _)| *of == number), self.0.get(&number)) {
            (Some((_, word)), _) => word,
            (None, Some(name)) => return name.clone(),
            (None, None) => "unknown",
        };
        RuleName {
            rule: word.into(),
            comment: None,
        }
    }
}
