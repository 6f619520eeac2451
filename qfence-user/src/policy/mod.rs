//! The policy: ordered rules, of which the first match decides, and the sets that they name.

#[cfg(test)]
mod documented;
pub mod domain;
pub mod grammar;
pub mod guard;
pub mod hostset;
pub mod members;
pub mod names;
pub mod nameservers;
pub mod nat64;
pub mod numbering;
pub mod ports;
pub mod profile;
pub mod protocol;
pub mod resolv_options;
pub mod rule;
pub mod set;
mod sets;
pub mod suggest;
#[cfg(test)]
pub(crate) mod testing;

use std::{path::PathBuf, sync::LazyLock};

use ipnet::Ipv6Net;
use qfence_common::{Action, Protocol};
use serde::{Deserialize, Serialize};

pub use self::sets::Sets;
use self::{
    numbering::{Numbers, TooManyRules},
    ports::Ports,
    profile::Profile,
    protocol::Proto,
    rule::{Destination, Match, Rule, Source},
    set::SetName,
};

/// A prefix in the key space of the policy map, in which IPv4 is v4-mapped.
pub type Prefix = Ipv6Net;

/// Whether a profile's exception for the host's nameservers applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dns {
    /// As in the profile: `host` and `internet-only` allow the nameservers in resolv.conf on port 53, udp and tcp,
    /// even if they are this host
    Auto,
    /// Nameservers are judged like any other destination
    Deny,
}

/// The policy of a fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The rules for this fence alone, from the command line or from `set`. They precede the profile's.
    pub given: Vec<Rule>,
    /// See [`Dns`].
    pub dns: Dns,
    /// The profile.
    pub profile: Loaded,
    /// The action if no rule matches; `None` for the profile's default.
    pub default: Option<Rule>,
    /// Whether nothing is refused, and would-be refusals are logged.
    pub monitor: bool,
    numbers: Numbers,
}

/// A profile as it was loaded. Later changes of its file have no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// Its file; `None` if it is shipped.
    pub path: Option<PathBuf>,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// Its default, as a rule.
    pub default: Rule,
}

/// A rule, and the number that the kernel uses for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Below [`qfence_common::verdict::MAX_RULES`].
    pub number: u32,
    /// The rule.
    pub rule: Rule,
}

impl From<Profile> for Loaded {
    fn from(profile: Profile) -> Self {
        Self {
            default: profile.default_rule(),
            name: profile.name,
            path: profile.path,
            rules: profile.rules,
        }
    }
}

impl Policy {
    /// A policy with the rules `given` before those of a profile.
    ///
    /// # Errors
    /// If it has more rules than the kernel counts.
    pub fn new(
        given: Vec<Rule>,
        dns: Dns,
        profile: Loaded,
        default: Option<Action>,
        monitor: bool,
    ) -> Result<Self, TooManyRules> {
        let mut policy = Self {
            given,
            dns,
            profile,
            default: default.map(given_default),
            monitor,
            numbers: Numbers::default(),
        };
        policy.number(&[])?;
        Ok(policy)
    }

    /// This policy after a change to its parts. A rule that remains keeps its number, and so its hits.
    ///
    /// # Errors
    /// If it has more rules than the kernel counts.
    pub fn changed(&self, change: impl FnOnce(&mut Self)) -> Result<Self, TooManyRules> {
        let before = self.rules();
        let mut changed = self.clone();
        change(&mut changed);
        changed.number(&before)?;
        Ok(changed)
    }

    /// When the first rule for a while is to be taken back, in nanoseconds since boot.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let ends = self.given.iter().filter_map(|rule| rule.source.end());
        ends.map(|until| until.boot_ns).min()
    }

    /// This policy without the rules whose time is over, `now` nanoseconds after boot.
    ///
    /// # Errors
    /// Never more than those of [`Policy::changed`].
    pub fn without_ended(&self, now: u64) -> Result<Self, TooManyRules> {
        let is_over = |rule: &Rule| rule.source.end().is_some_and(|until| until.boot_ns <= now);
        self.changed(|policy| policy.given.retain(|rule| !is_over(rule)))
    }

    fn number(&mut self, before: &[Numbered]) -> Result<(), TooManyRules> {
        self.numbers = self.numbers.assign(before, &self.in_order())?;
        Ok(())
    }

    /// All rules, in the order in which they are tried. The last matches everything.
    #[must_use]
    pub fn rules(&self) -> Vec<Numbered> {
        let rules = self.in_order().into_iter().cloned();
        let numbered = self.numbers.iter().zip(rules);
        numbered
            .map(|(number, rule)| Numbered { number, rule })
            .collect()
    }

    /// One more than the highest rule number.
    #[must_use]
    pub fn numbers_end(&self) -> u32 {
        self.numbers
            .iter()
            .map(|number| number + 1)
            .max()
            .unwrap_or(0)
    }

    fn in_order(&self) -> Vec<&Rule> {
        let of_profile = self.profile.rules.iter();
        let rules: Vec<&Rule> = self
            .given
            .iter()
            .chain(of_profile.filter(|rule| self.dns == Dns::Auto || !excepts_dns(rule)))
            .collect();
        let has_name = |rule: &&Rule| rule.matches.iter().any(|of| of.pattern().is_some());
        let around = rules.iter().any(has_name).then_some(&*AROUND);
        let (given, of_profile) = rules.split_at(self.given.len());
        given
            .iter()
            .copied()
            .chain(around)
            .chain(of_profile.iter().copied())
            .chain([self.default.as_ref().unwrap_or(&self.profile.default)])
            .collect()
    }

    /// Whether it has rules by name.
    #[must_use]
    pub fn has_names(&self) -> bool {
        let matches = self.in_order().into_iter().flat_map(|rule| &rule.matches);
        matches.into_iter().any(|of| of.pattern().is_some())
    }

    /// Whether it depends on the host's nameservers.
    #[must_use]
    pub fn names_dns(&self) -> bool {
        self.names(SetName::Dns)
    }

    /// Whether it depends on the members of a set.
    #[must_use]
    pub fn names(&self, set: SetName) -> bool {
        let named = Destination::Set(set);
        self.in_order()
            .iter()
            .any(|rule| rule.matches.iter().any(|of| of.destination == named))
    }
}

/// Denies look-ups that a policy by names does not see: DNS over TLS and over QUIC (RFC 7858, RFC 9250). It follows the rules
/// that were given for the fence, which may allow a server.
static AROUND: LazyLock<Rule> = LazyLock::new(|| Rule {
    action: Action::Deny,
    matches: [Protocol::TCP, Protocol::UDP]
        .map(|protocol| Match {
            protocol: Proto::Number(protocol.0.to_le_bytes()[0]),
            destination: Destination::Set(SetName::Any),
            ports: Ports::dns_encrypted(),
        })
        .into(),
    comment: Some(
        "DNS over TLS and QUIC: the fence's rules by name would not see the look-ups".into(),
    ),
    source: Source::Names,
});

/// Whether a rule only allows nameservers.
fn excepts_dns(rule: &Rule) -> bool {
    let dns = Destination::Set(SetName::Dns);
    rule.action == Action::Allow && rule.matches.iter().all(|of| of.destination == dns)
}

/// `--default`, as a rule.
#[must_use]
pub fn given_default(action: Action) -> Rule {
    let word = match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    };
    Rule {
        action,
        matches: vec![Match::all_of(Destination::Set(SetName::Any))],
        comment: None,
        source: Source::Flag {
            text: format!("--default {word}"),
        },
    }
}
