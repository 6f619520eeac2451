//! Rules as logs name them.

use std::{collections::BTreeMap, sync::Arc};

use qfence_common::verdict;

use super::{Numbered, Policy};

/// How the built-in rule reads by which a peer on the host that spoke first is answered.
pub const REPLIES: &str = "allow replies";

/// What a log says of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// The rule, or the word for what refused without one.
    pub rule: Arc<str>,
    /// The comment in its profile.
    pub comment: Option<Arc<str>>,
}

/// The names of all rules that a fence has had, by their numbers.
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

    /// Takes in the rules of a policy that is in force from now on. Those that are gone are still
    /// known: events of theirs may be under way.
    pub fn learn(&mut self, policy: &Policy) {
        for Numbered { number, rule } in policy.rules() {
            let name = RuleName {
                rule: rule.brief().into(),
                comment: rule.comment.map(Into::into),
            };
            self.0.insert(number, name);
        }
    }

    /// The name of what refused, given the rule's number in an event.
    #[must_use]
    pub fn name(&self, number: u32) -> RuleName {
        let word = match number {
            verdict::UNPARSED => "unparsed",
            verdict::SOCKET_KIND => "deny-raw",
            verdict::DEVICE => "deny-device",
            verdict::BROADCAST => "deny-broadcast",
            verdict::FOREIGN_NETNS => "deny-foreign-netns",
            verdict::UNFOLLOWED => "deny-unfollowed-broadcast",
            verdict::UNOWNED => "deny-unowned",
            // The policy map had no answer.
            verdict::NO_RULE => "no-policy",
            number => match self.0.get(&number) {
                Some(name) => return name.clone(),
                None => "unknown",
            },
        };
        RuleName {
            rule: word.into(),
            comment: None,
        }
    }
}
