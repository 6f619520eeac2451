//! Compiles rules and sets to the entries of the policy map.
//!
//! For each prefix that any set has, the entry lists the clauses of the rules whose destination
//! contains that prefix, in order, cut after the first that leaves nothing for later ones. First
//! match then costs one longest-prefix lookup and a short scan.
//!
//! There are two trees, one for each path. Through the loopback device everything is the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::Ipv6Net;
use qfence_common::{Action, Clause, Entry, Path, Protocol, decide, decide::MAX_CLAUSES};

use crate::{
    hostset::single,
    policy::{Prefix, Rule, Set, Sets},
};

/// The contents of the policy map.
pub type Compiled = BTreeMap<(Path, Prefix), Entry>;

/// A prefix for which more clauses apply than an entry holds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules for {prefix} need more than {MAX_CLAUSES} clauses")]
pub struct TooManyClauses {
    /// The prefix.
    pub prefix: Prefix,
}

/// Compiles `rules` with the members that `sets` have now. `::/0` is always in the result, for each
/// path.
///
/// # Errors
/// If the clauses for a prefix do not fit; nothing is ever cut short.
pub fn compile(rules: &[Rule], sets: &Sets) -> Result<Compiled, TooManyClauses> {
    let everything = BTreeSet::from([Ipv6Net::default()]);
    let host = Members::new(&sets.host);
    let local_nameservers: BTreeSet<Prefix> = sets
        .nameservers
        .iter()
        .copied()
        .filter(|prefix| host.contain(prefix))
        .collect();
    let mut compiled = Compiled::new();
    for (path, host, dns) in [
        (Path::Address, &sets.host, &local_nameservers),
        (Path::Loopback, &everything, &sets.nameservers),
    ] {
        let (host, dns) = (Members::new(host), Members::new(dns));
        let many = Members::new(&sets.many);
        let prefixes: BTreeSet<_> = [host.prefixes, dns.prefixes, &everything]
            .into_iter()
            .flatten()
            .collect();
        for &prefix in prefixes {
            let applies = |rule: &&Rule| match rule.destination {
                Set::Any => true,
                Set::Host => host.contain(&prefix),
                Set::Dns => dns.contain(&prefix),
            };
            let entry = entry(rules.iter().enumerate().filter(|(_, rule)| applies(rule)));
            let mut entry = entry.ok_or(TooManyClauses { prefix })?;
            entry.many = u32::from(many.contain(&prefix));
            compiled.insert((path, prefix), entry);
        }
    }
    Ok(compiled)
}

/// What the kernel decides by these entries.
#[must_use]
pub fn verdict(
    compiled: &Compiled,
    path: Path,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
) -> Action {
    decide(look_up(compiled, path, address), protocol, port).action
}

/// What the kernel looks up: the entry of the longest prefix that holds the address.
fn look_up(compiled: &Compiled, path: Path, address: IpAddr) -> Option<&Entry> {
    let address = single(address);
    compiled
        .iter()
        .filter(|((of, prefix), _)| *of == path && prefix.contains(&address))
        .max_by_key(|((_, prefix), _)| prefix.prefix_len())
        .map(|(_, entry)| entry)
}

/// The entry of the rules that apply to one prefix; `None` if they do not fit.
fn entry<'a>(rules: impl Iterator<Item = (usize, &'a Rule)>) -> Option<Entry> {
    let clauses = rules.flat_map(|(index, rule)| {
        rule.protocols.iter().map(move |&protocol| Clause {
            action: rule.action as u32,
            rule: u32::try_from(index).unwrap_or(decide::NO_RULE),
            protocol,
            port_first: rule.ports.0,
            port_last: rule.ports.1,
        })
    });
    let mut entry = Entry::EMPTY;
    for clause in clauses {
        *entry.clauses.get_mut(entry.len as usize)? = clause;
        entry.len += 1;
        if clause.is_final() {
            break;
        }
    }
    Some(entry)
}

/// A set of prefixes, ready to be asked which other prefixes lie in it.
struct Members<'a> {
    prefixes: &'a BTreeSet<Prefix>,
    /// The lengths that occur: a handful, so that a question costs a handful of look-ups.
    lengths: BTreeSet<u8>,
}

impl<'a> Members<'a> {
    fn new(prefixes: &'a BTreeSet<Prefix>) -> Self {
        Self {
            prefixes,
            lengths: prefixes.iter().map(Ipv6Net::prefix_len).collect(),
        }
    }

    /// Whether one of the set's prefixes holds all of `prefix`.
    fn contain(&self, prefix: &Prefix) -> bool {
        self.lengths.range(..=prefix.prefix_len()).any(|&length| {
            Ipv6Net::new(prefix.addr(), length)
                .is_ok_and(|parent| self.prefixes.contains(&parent.trunc()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hostset::{host_set, many_set, prefix},
        nameservers,
        policy::{Dns, rules},
    };

    fn sets(resolv_conf: &str) -> Sets {
        let lan = single("192.0.2.10".parse().unwrap());
        let any_ip = prefix("198.51.100.0".parse().unwrap(), 24).unwrap();
        let broadcast = single("192.0.2.255".parse().unwrap());
        Sets {
            host: host_set([lan, any_ip, broadcast]),
            many: many_set([broadcast]),
            nameservers: nameservers::parse(resolv_conf),
        }
    }

    fn verdict(compiled: &Compiled, protocol: Protocol, address: &str, port: u16) -> Action {
        let address = address.parse().unwrap();
        super::verdict(compiled, Path::Address, protocol, address, port)
    }

    fn verdict_on_loopback(compiled: &Compiled, address: &str, port: u16) -> Action {
        let address = address.parse().unwrap();
        super::verdict(compiled, Path::Loopback, Protocol::UDP, address, port)
    }

    #[test]
    fn through_loopback_everything_is_the_host() {
        let compiled = compile(
            &rules(Dns::Auto),
            &sets("nameserver 127.0.0.53\nnameserver 1.1.1.1"),
        )
        .unwrap();
        for address in ["127.0.0.1", "8.8.8.8", "2001:db8::1", "::1"] {
            assert_eq!(verdict_on_loopback(&compiled, address, 53), Action::Deny);
        }
        // A nameserver that is reached there is the host's own.
        for address in ["127.0.0.53", "1.1.1.1"] {
            assert_eq!(verdict_on_loopback(&compiled, address, 53), Action::Allow);
            assert_eq!(verdict_on_loopback(&compiled, address, 54), Action::Deny);
        }
    }

    #[test]
    fn broadcast_and_multicast_are_marked() {
        let compiled = compile(&rules(Dns::Auto), &sets("")).unwrap();
        for address in ["255.255.255.255", "224.0.0.251", "192.0.2.255", "ff02::fb"] {
            let address = address.parse().unwrap();
            assert_ne!(look_up(&compiled, Path::Address, address).unwrap().many, 0);
        }
        for address in ["127.0.0.1", "192.0.2.10", "1.1.1.1", "::1", "198.51.100.3"] {
            let address = address.parse().unwrap();
            assert_eq!(look_up(&compiled, Path::Address, address).unwrap().many, 0);
        }
    }

    #[test]
    fn the_host_is_denied_and_the_internet_allowed() {
        let compiled = compile(&rules(Dns::Auto), &sets("")).unwrap();
        for address in [
            "127.0.0.1",
            "192.0.2.10",
            "198.51.100.200",
            "::1",
            "ff02::1",
        ] {
            assert_eq!(
                verdict(&compiled, Protocol::TCP, address, 53),
                Action::Deny,
                "{address}"
            );
        }
        for address in ["192.0.2.11", "1.1.1.1", "2001:db8::1"] {
            assert_eq!(
                verdict(&compiled, Protocol::UDP, address, 9),
                Action::Allow,
                "{address}"
            );
        }
    }

    #[test]
    fn a_local_nameserver_is_excepted_on_its_port_alone() {
        let compiled = compile(&rules(Dns::Auto), &sets("nameserver 127.0.0.53")).unwrap();
        assert_eq!(
            verdict(&compiled, Protocol::UDP, "127.0.0.53", 53),
            Action::Allow
        );
        assert_eq!(
            verdict(&compiled, Protocol::TCP, "127.0.0.53", 53),
            Action::Allow
        );
        assert_eq!(
            verdict(&compiled, Protocol::TCP, "127.0.0.53", 54),
            Action::Deny
        );
        assert_eq!(
            verdict(&compiled, Protocol(1), "127.0.0.53", 53),
            Action::Deny
        );
        assert_eq!(
            verdict(&compiled, Protocol::UDP, "127.0.0.1", 53),
            Action::Deny
        );
    }

    #[test]
    fn with_dns_deny_no_nameserver_is_excepted() {
        let compiled = compile(&rules(Dns::Deny), &sets("nameserver 127.0.0.53")).unwrap();
        assert_eq!(
            verdict(&compiled, Protocol::UDP, "127.0.0.53", 53),
            Action::Deny
        );
    }

    #[test]
    fn a_nameserver_elsewhere_needs_no_entry() {
        let compiled = compile(&rules(Dns::Auto), &sets("nameserver 1.1.1.1")).unwrap();
        let key = (Path::Address, single("1.1.1.1".parse().unwrap()));
        assert!(!compiled.contains_key(&key));
        assert_eq!(
            verdict(&compiled, Protocol::UDP, "1.1.1.1", 53),
            Action::Allow
        );
    }

    #[test]
    fn everything_has_an_entry() {
        let compiled = compile(&rules(Dns::Auto), &Sets::default()).unwrap();
        let keys = Path::ALL.map(|path| (path, Ipv6Net::default()));
        assert!(compiled.keys().eq(&keys));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut many = rules(Dns::Auto);
        many.splice(
            ..0,
            std::iter::repeat_n(many[0], 3).map(|rule| Rule {
                destination: Set::Any,
                ..rule
            }),
        );
        assert!(compile(&many, &sets("")).is_err());
    }
}
