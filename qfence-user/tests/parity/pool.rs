//! The building blocks of random scenes: prefixes, sets, protocols, ports and rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};

use qfence_user::policy::set::SetName;

use super::naive::{Host, NaiveMatch, NaiveProtocol, NaiveRule, To};

/// Both families have nested prefixes. Those at the end are in no named set; lists of bogus networks have them.
const POOL: [&str; 26] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "fd00::/8",
    "10.32.0.0/11",
    "fd00:20::/27",
    "10.42.0.0/16",
    "fd00:42::/32",
    "10.42.128.0/17",
    "fd00:42:8000::/33",
    "10.42.200.0/24",
    "fd00:42:c800::/40",
    "10.42.200.7/32",
    "fd00:42:c800::7/128",
    "8.0.0.0/5",
    "2000::/3",
    "9.9.9.0/24",
    "2620:fe::/48",
    "9.9.9.9/32",
    "2620:fe::fe/128",
    "127.0.0.0/30",
    "::/127",
    "192.0.2.0/24",
    "100::/64",
    "169.254.0.0/16",
    "64:ff9b::/96",
];

/// Names of rules. None is below that of the last.
const PATTERNS: [&str; 6] = [
    "example.org",
    "a.example.org",
    "b.example.org",
    "*.example.org",
    "*.a.example.org",
    "other.example",
];

const WITH_PORTS: [u8; 5] = [6, 17, 132, 33, 136];

/// The prefixes and sets of one scene. With few of them, collisions are frequent.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    nets: Vec<&'static str>,
    sets: Vec<&'static str>,
}

impl Pool {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let nets = subsequence(&POOL[..], 2..=POOL.len());
        // The evaluator panics at a set that it does not know.
        let sets = SetName::ALL.map(SetName::name);
        let sets = subsequence(sets.to_vec(), 1..=sets.len());
        (nets, sets).prop_map(|(nets, sets)| Self { nets, sets })
    }

    fn whole_net(&self) -> impl Strategy<Value = IpNet> + use<> {
        select(self.nets.clone()).prop_map(|text| text.parse().unwrap())
    }

    /// A prefix of the pool, a part of one, or an address at an edge.
    fn net(&self) -> impl Strategy<Value = IpNet> + use<> {
        let part = (self.whole_net(), any::<u128>(), 0..=12u8);
        let edge = (self.whole_net(), any::<bool>());
        prop_oneof![
            3 => self.whole_net(),
            1 => part.prop_map(|(net, bits, longer)| part_of(net, bits, longer)),
            1 => edge.prop_map(|(net, last)| {
                IpNet::from(if last { net.broadcast() } else { net.network() })
            }),
        ]
    }

    fn to(&self) -> impl Strategy<Value = To> + use<> {
        prop_oneof![
            3 => self.net().prop_map(To::Net),
            2 => select(self.sets.clone()).prop_map(To::Set),
            1 => select(&PATTERNS[..]).prop_map(To::Name),
        ]
    }
}

fn part_of(net: IpNet, bits: u128, longer: u8) -> IpNet {
    let length = (net.prefix_len() + longer).min(net.max_prefix_len());
    match net {
        IpNet::V4(v4) => {
            let [.., a, b, c, d] = bits.to_be_bytes();
            let below = u32::from_be_bytes([a, b, c, d]) & u32::from(v4.hostmask());
            let address = Ipv4Addr::from(u32::from(v4.network()) | below);
            Ipv4Net::new(address, length).unwrap().trunc().into()
        }
        IpNet::V6(v6) => {
            let address = u128::from(v6.network()) | (bits & u128::from(v6.hostmask()));
            let net = Ipv6Net::new(Ipv6Addr::from(address), length);
            net.unwrap().trunc().into()
        }
    }
}

fn protocol() -> impl Strategy<Value = NaiveProtocol> {
    prop_oneof![
        3 => Just(NaiveProtocol::Any),
        4 => select(&WITH_PORTS[..3]).prop_map(NaiveProtocol::Number),
        1 => select(&WITH_PORTS[3..]).prop_map(NaiveProtocol::Number),
        1 => Just(NaiveProtocol::Icmp),
        1 => select(&[1, 2, 47, 58, 255][..]).prop_map(NaiveProtocol::Number),
    ]
}

fn ports() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let port = prop_oneof![
        1..=100u16,
        select(&[1, 52, 53, 54, 80, 443, 8000, 65_534, 65_535][..])
    ];
    let range = prop_oneof![
        port.clone().prop_map(|port| (port, port)),
        (port.clone(), port).prop_map(|(a, b)| (a.min(b), a.max(b))),
    ];
    prop_oneof![1 => Just(Vec::new()), 1 => vec(range, 1..6)]
}

fn naive_match(pool: &Pool) -> impl Strategy<Value = NaiveMatch> + use<> {
    (protocol(), pool.to(), ports()).prop_map(|(mut protocol, to, mut ports)| {
        if matches!(to, To::Set("self")) && !may_be_of_self(protocol, &ports) {
            protocol = NaiveProtocol::Any;
        }
        let has_ports = match protocol {
            NaiveProtocol::Any => true,
            NaiveProtocol::Icmp => false,
            NaiveProtocol::Number(number) => WITH_PORTS.contains(&number),
        };
        if !has_ports {
            ports.clear();
        }
        NaiveMatch {
            protocol,
            to,
            ports,
        }
    })
}

/// `self` has listeners of TCP, and of UDP for given ports.
fn may_be_of_self(protocol: NaiveProtocol, ports: &[(u16, u16)]) -> bool {
    match protocol {
        NaiveProtocol::Any | NaiveProtocol::Number(6) => true,
        NaiveProtocol::Number(17) => !ports.is_empty(),
        NaiveProtocol::Icmp | NaiveProtocol::Number(_) => false,
    }
}

/// Only rules that allow can name `self`.
fn of_action(allow: bool, mut matches: Vec<NaiveMatch>) -> NaiveRule {
    let of_self = |of: &&mut NaiveMatch| !allow && matches!(of.to, To::Set("self"));
    for of in matches.iter_mut().filter(of_self) {
        of.to = To::Set("host");
    }
    NaiveRule { allow, matches }
}

pub(crate) fn naive_rule(pool: &Pool) -> impl Strategy<Value = NaiveRule> + use<> {
    let matches = prop_oneof![4 => vec(naive_match(pool), 1), 1 => vec(naive_match(pool), 2..4)];
    (any::<bool>(), matches).prop_map(|(allow, matches)| of_action(allow, matches))
}

pub(crate) fn host(pool: &Pool) -> impl Strategy<Value = Host> + use<> {
    let address = || pool.net().prop_map(|net| net.addr());
    // Mostly addresses; the others are AnyIP prefixes.
    let local = prop_oneof![
        3 => address().prop_map(IpNet::from),
        1 => pool.whole_net(),
    ];
    let broadcast = address().prop_map(IpNet::from);
    let nat64 = subsequence(&["2001:db8:64::/96", "fd00:42:c800::/96"][..], 0..=2);
    (
        vec(local, 0..6),
        vec(broadcast, 0..3),
        vec(address(), 0..4),
        vec(address(), 0..3),
        nat64,
    )
        .prop_map(|(local, broadcasts, nameservers, gateways, nat64)| Host {
            local,
            broadcasts,
            nameservers,
            gateways,
            nat64: nat64.iter().map(|text| text.parse().unwrap()).collect(),
        })
}
