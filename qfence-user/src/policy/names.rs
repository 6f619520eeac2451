//! Rules as logs name them.

use std::{collections::BTreeMap, sync::Arc};

use qfence_common::verdict;

use super::{Numbered, Policy};
use crate::store::{Edition, Store};

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

/// The names of the rules of a running fence, whose policy others can change.
#[derive(Debug)]
pub struct Known {
    names: Names,
    store: Store,
    edition: Option<Edition>,
}

impl Known {
    /// The names of a policy's rules, and of those that come into the store of its fence.
    #[must_use]
    pub fn new(policy: &Policy, store: Store) -> Self {
        Self {
            names: Names::of(policy),
            store,
            edition: None,
        }
    }

    /// The names as they are now.
    pub fn now(&mut self) -> &Names {
        let edition = self.store.edition();
        if edition != self.edition
            && let Ok(Some(stored)) = self.store.read()
        {
            self.names.learn(&stored.policy);
            self.edition = edition;
        }
        &self.names
    }
}

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
