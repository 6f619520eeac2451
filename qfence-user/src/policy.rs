//! The policy: ordered rules, of which the first that matches decides, and the sets they name.

pub mod grammar;
pub mod ports;
pub mod profile;
pub mod protocol;
pub mod rule;
pub mod set;

use std::collections::BTreeSet;

use ipnet::Ipv6Net;
use qfence_common::{Action, Protocol, decide};

/// A prefix in the one key space of the policy map; IPv4 is v4-mapped.
pub type Prefix = Ipv6Net;

/// What a rule's destination names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// The host's nameservers, as far as they are the host itself.
    Dns,
    /// Every destination that is the host.
    Host,
    /// Everything.
    Any,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in logs.
    pub name: &'static str,
    /// What it does with what it matches.
    pub action: Action,
    /// The destinations it is about.
    pub destination: Set,
    /// The protocols it is about.
    pub protocols: &'static [Protocol],
    /// The first and last port it is about, in host order.
    pub ports: (u16, u16),
}

const ALL_PORTS: (u16, u16) = (0, u16::MAX);

const ALLOW_DNS: Rule = Rule {
    name: "allow-dns",
    action: Action::Allow,
    destination: Set::Dns,
    protocols: &[Protocol::TCP, Protocol::UDP],
    ports: (53, 53),
};

const DENY_HOST: Rule = Rule {
    name: "deny-host",
    action: Action::Deny,
    destination: Set::Host,
    protocols: &[Protocol::ANY],
    ports: ALL_PORTS,
};

const ALLOW_ANY: Rule = Rule {
    name: "allow-any",
    action: Action::Allow,
    destination: Set::Any,
    protocols: &[Protocol::ANY],
    ports: ALL_PORTS,
};

/// The name in logs of a refusal that no rule made: the policy map had no answer.
const NO_RULE_NAME: &str = "no-policy";

/// The name in logs of what refused, given the rule's number in an event.
#[must_use]
pub fn rule_name(rules: &[Rule], number: u32) -> &'static str {
    match number {
        decide::UNPARSED => "unparsed",
        decide::SOCKET_KIND => "deny-raw",
        decide::DEVICE => "deny-device",
        decide::BROADCAST => "deny-broadcast",
        _ => usize::try_from(number)
            .ok()
            .and_then(|index| rules.get(index))
            .map_or(NO_RULE_NAME, |rule| rule.name),
    }
}

/// Whether the host's nameservers stay reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dns {
    /// Nameservers in resolv.conf that are the host stay reachable on port 53, udp and tcp
    Auto,
    /// They are refused like the rest of the host
    Deny,
}

/// The rules in force: the host is denied, its nameservers are excepted, all else is allowed.
#[must_use]
pub fn rules(dns: Dns) -> Vec<Rule> {
    match dns {
        Dns::Auto => vec![ALLOW_DNS, DENY_HOST, ALLOW_ANY],
        Dns::Deny => vec![DENY_HOST, ALLOW_ANY],
    }
}

/// The members of the sets at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// See [`Set::Host`].
    pub host: BTreeSet<Prefix>,
    /// Those of the addresses that name many receivers: broadcast and multicast.
    pub many: BTreeSet<Prefix>,
    /// The host's nameservers, wherever they are.
    pub nameservers: BTreeSet<Prefix>,
}
