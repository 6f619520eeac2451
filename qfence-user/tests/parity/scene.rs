//! Random policies, hosts and destinations. All come out of a small pool of prefixes, so that they contain each other.
//! Destinations are at the edges of the prefixes and ports of the rules.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use qfence_common::{
    Action,
    resolved::{GRANTS, Grant},
};
use qfence_user::compile::named::Lookups;
use qfence_user::policy::{
    Dns, Loaded, Policy, Prefix, Sets, given_default,
    hostset::{host_set, many_set, single},
    rule::{Match, Rule, Source},
};

use super::{
    naive::{
        Host, NAMES, NaiveMatch, NaiveProtocol, NaiveRule, Target, To, canonical, fixed_prefixes,
        looked_up,
    },
    pool::{Pool, host, naive_rule},
};

/// The most rules besides the default.
const RULES: usize = 60;

/// A policy and its host, for the naive evaluator. Methods convert them to the program's types.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// The last one is the default.
    pub(crate) rules: Vec<NaiveRule>,
    pub(crate) host: Host,
}

pub(crate) fn scene() -> impl Strategy<Value = Scene> {
    let rules = |pool: Pool| {
        (
            vec(naive_rule(&pool), 0..=RULES),
            any::<bool>(),
            host(&pool),
        )
    };
    Pool::any()
        .prop_flat_map(rules)
        .prop_map(|(mut rules, allow, host)| {
            rules.extend(encrypted_dns(&rules));
            let everything = NaiveMatch {
                protocol: NaiveProtocol::Any,
                to: To::Set("any"),
                ports: Vec::new(),
            };
            rules.push(NaiveRule {
                allow,
                matches: vec![everything],
            });
            Scene { rules, host }
        })
}

/// The rule that a policy with names has after those that are given: it denies encrypted DNS.
fn encrypted_dns(given: &[NaiveRule]) -> Option<NaiveRule> {
    let mut matches = given.iter().flat_map(|rule| &rule.matches);
    let of = |number| NaiveMatch {
        protocol: NaiveProtocol::Number(number),
        to: To::Set("any"),
        ports: vec![(853, 853)],
    };
    let has_name = matches.any(|of| matches!(of.to, To::Name(_)));
    has_name.then(|| NaiveRule {
        allow: false,
        matches: vec![of(6), of(17)],
    })
}

impl Scene {
    /// The policy, parsed from the text of its rules.
    pub(crate) fn policy(&self) -> Policy {
        let (default, given) = self.rules.split_last().unwrap();
        let default = action(default.allow);
        let profile = Loaded {
            name: "random".into(),
            path: None,
            rules: Vec::new(),
            default: given_default(default),
        };
        // The policy adds this one itself.
        let added = encrypted_dns(given).map_or(0, |_| 1);
        let given = given[..given.len() - added].iter().enumerate();
        let given = given.map(rule).collect();
        Policy::new(given, Dns::Auto, profile, Some(default), false).unwrap()
    }

    pub(crate) fn sets(&self) -> Sets {
        let Host {
            local,
            broadcasts,
            nameservers,
            gateways,
            nat64,
        } = &self.host;
        let local = local.iter().chain(broadcasts).copied().map(mapped);
        Sets {
            host: host_set(local),
            many: many_set(broadcasts.iter().copied().map(mapped)),
            nameservers: nameservers.iter().copied().map(single).collect(),
            gateways: gateways.iter().copied().map(single).collect(),
            nat64: nat64.iter().copied().map(mapped).collect(),
            pod: BTreeSet::new(),
        }
    }

    /// Addresses at the edges of all prefixes: the first, the last, and their neighbours.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let in_rules = self.rules.iter().flat_map(|rule| &rule.matches);
        let in_rules = in_rules.filter_map(|of| match of.to {
            To::Net(net) => Some(net),
            To::Set(_) | To::Name(_) => None,
        });
        let Host {
            local,
            broadcasts,
            nameservers,
            gateways,
            nat64,
        } = &self.host;
        let of_host = local.iter().chain(broadcasts).copied();
        let of_host = of_host.chain(nameservers.iter().chain(gateways).copied().map(IpNet::from));
        let mut edges: Vec<IpAddr> = in_rules.chain(of_host).flat_map(edges_of).collect();
        edges.extend(fixed_prefixes().flat_map(edges_of));
        let well_known: IpNet = "64:ff9b::/96".parse().unwrap();
        let spelled: Vec<_> = nat64
            .iter()
            .chain([&well_known])
            .flat_map(|net| edges.iter().filter_map(|edge| under(*net, *edge)))
            .collect();
        edges.extend(spelled);
        edges
    }

    /// Ports at the edges of all ranges.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let matches = self.rules.iter().flat_map(|rule| &rule.matches);
        let edges = matches.flat_map(|of| &of.ports).flat_map(|&(first, last)| {
            [first - 1, first, first.saturating_add(1)]
                .into_iter()
                .chain([last - 1, last, last.saturating_add(1)])
        });
        edges.chain([0, 52, 53, 54, 65_535]).collect()
    }

    /// The destination of a choice.
    pub(crate) fn target(&self, choice: &Choice, addresses: &[IpAddr], ports: &[u16]) -> Target {
        Target {
            address: *choice.address.get(addresses),
            protocol: choice.protocol,
            port: match choice.protocol {
                1 | 2 | 47 | 58 | 255 => 0,
                _ => *choice.port.get(ports),
            },
            loopback: choice.loopback,
            own: false,
            names: choice.names,
        }
    }
}

/// A choice of one destination of a scene.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    address: Index,
    port: Index,
    protocol: u32,
    loopback: bool,
    names: u8,
}

pub(crate) fn choices(
    count: usize,
    protocols: &'static [u32],
) -> impl Strategy<Value = Vec<Choice>> {
    let choice = (
        any::<Index>(),
        any::<Index>(),
        select(protocols),
        any::<bool>(),
        names(),
    )
        .prop_map(|(address, port, protocol, loopback, names)| Choice {
            address,
            port,
            protocol,
            loopback,
            names,
        });
    vec(choice, count)
}

/// None in one of three, mostly one, or some.
fn names() -> impl Strategy<Value = u8> {
    let end = 1_u8 << NAMES.len();
    prop_oneof![
        2 => Just(0_u8),
        3 => (0..NAMES.len()).prop_map(|bit| 1_u8 << bit),
        1 => 0..end,
    ]
}

fn edges_of(net: IpNet) -> Vec<IpAddr> {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let (first, last) = (bits(net.network()), bits(net.broadcast()));
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
        .into_iter()
        .map(|bits| match net {
            IpNet::V4(_) => {
                let [.., a, b, c, d] = bits.to_be_bytes();
                IpAddr::from([a, b, c, d])
            }
            // The neighbour of a prefix can be a v4-mapped address.
            IpNet::V6(_) => canonical(Ipv6Addr::from(bits)),
        })
        .collect()
}

fn mapped(net: IpNet) -> Prefix {
    qfence_user::policy::hostset::prefix(net.addr(), net.prefix_len()).unwrap()
}

/// Forgets names of a destination until the grants of the others fit. Returns these.
pub(crate) fn grants(lookups: &Lookups, target: &mut Target) -> Vec<Grant> {
    loop {
        let names = looked_up(target).into_iter();
        let of = |name: &str| lookups.permission(&name.parse().unwrap()).grants;
        let all: BTreeSet<Grant> = names.flat_map(of).collect();
        if all.len() <= GRANTS {
            return all.into_iter().collect();
        }
        target.names &= target.names - 1;
    }
}

pub(crate) fn action(allow: bool) -> Action {
    if allow { Action::Allow } else { Action::Deny }
}

/// Each rule has another source, so no two rules are equal.
fn rule((index, naive): (usize, &NaiveRule)) -> Rule {
    let texts: Vec<String> = naive.matches.iter().map(text).collect();
    Rule {
        action: action(naive.allow),
        matches: texts.iter().map(|text| parse(text)).collect(),
        comment: None,
        source: Source::Flag {
            text: format!("{index}: {}", texts.join(" ")),
        },
    }
}

fn parse(text: &str) -> Match {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The text of a match in a flag.
fn text(of: &NaiveMatch) -> String {
    let protocol = match of.protocol {
        NaiveProtocol::Any => String::new(),
        NaiveProtocol::Icmp => "icmp:".to_owned(),
        NaiveProtocol::Number(number) => match number {
            6 => "tcp:".to_owned(),
            17 => "udp:".to_owned(),
            132 => "sctp:".to_owned(),
            33 => "dccp:".to_owned(),
            136 => "udplite:".to_owned(),
            2 => "igmp:".to_owned(),
            47 => "gre:".to_owned(),
            other => format!("proto-{other}:"),
        },
    };
    let to = match of.to {
        To::Set(name) | To::Name(name) => name.to_owned(),
        To::Net(IpNet::V4(v4)) if v4.prefix_len() == 32 => v4.addr().to_string(),
        To::Net(IpNet::V4(v4)) => v4.to_string(),
        To::Net(IpNet::V6(v6)) if v6.prefix_len() == 128 => format!("[{}]", v6.addr()),
        To::Net(IpNet::V6(v6)) => format!("[{v6}]"),
    };
    let ports: Vec<String> = of
        .ports
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    let ports = if ports.is_empty() {
        String::new()
    } else {
        format!(":{}", ports.join(","))
    };
    format!("{protocol}{to}{ports}")
}

/// An IPv4 address under the prefix of a NAT64 translator.
fn under(net: IpNet, address: IpAddr) -> Option<IpAddr> {
    match (net, address) {
        (IpNet::V6(net), IpAddr::V4(v4)) => {
            let bits = net.network().to_bits() | u128::from(v4.to_bits());
            Some(Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}
