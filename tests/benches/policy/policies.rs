//! The policies that are measured, and destinations for each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use qfence_common::Action;
use qfence_user::policy::{
    Dns, Loaded, Policy, given_default,
    rule::{Match, Rule, Source},
};

/// Of how many prefixes a change of policy is measured.
pub(crate) const SIZES: [u32; 5] = [10, 100, 1000, 10_000, 100_000];
/// How many destinations are called in a round: as many for every policy, half of each family.
const DESTINATIONS: u32 = 1000;
/// The port that is called.
const PORT: u16 = 3000;

/// What is measured at each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// A policy that allows this many prefixes, all over the address space.
    Prefixes(u32),
    /// This many rules, of which each holds every destination but not the port, but for the last.
    Rules(u16),
}

impl Case {
    pub(crate) const PREFIXES: [Self; 5] = [
        Self::Prefixes(10),
        Self::Prefixes(100),
        Self::Prefixes(1000),
        Self::Prefixes(10_000),
        Self::Prefixes(100_000),
    ];
    pub(crate) const RULES: [Self; 4] = [
        Self::Rules(1),
        Self::Rules(4),
        Self::Rules(16),
        Self::Rules(60),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Prefixes(count) => format!("{count} prefixes"),
            Self::Rules(1) => "1 rule".to_owned(),
            Self::Rules(count) => format!("{count} overlapping rules"),
        }
    }

    pub(crate) fn policy(self) -> Result<Policy> {
        match self {
            Self::Prefixes(count) => prefixes(count),
            Self::Rules(count) => overlapping(count),
        }
    }

    /// What is called, all of it allowed: a refusal costs a record as well.
    pub(crate) fn lines(self) -> String {
        let each = |index: u32| match self {
            Self::Prefixes(count) => {
                let of = index * (count / 2) / (DESTINATIONS / 2);
                [IpAddr::from(v4(of, index)), v6(of, index).into()]
            }
            // In the innermost prefix of all.
            Self::Rules(_) => {
                let [high, low] = [u8::try_from(index >> 8).unwrap_or(0), (index & 0xff) as u8];
                let v4 = IpAddr::from([44, 1, high, low]);
                [
                    v4,
                    IpAddr::from([0x2a00, 1, 0, 0, 0, 0, 0, u16::try_from(index).unwrap_or(0)]),
                ]
            }
        };
        (0..DESTINATIONS / 2)
            .flat_map(each)
            .map(|address| format!("udp/{address}/{PORT}\n"))
            .collect()
    }
}

/// An address in the prefix of that number. Multiplied by an odd number the numbers are all over.
fn v4(prefix: u32, host: u32) -> Ipv4Addr {
    // A third of the space, without anything special in it.
    let spread = prefix.wrapping_mul(0x9e37) & 0x1f_ffff;
    let network = u32::from(Ipv4Addr::new(32, 0, 0, 0)) + (spread << 8);
    Ipv4Addr::from(network | (host & 0xff))
}

fn v6(prefix: u32, host: u32) -> Ipv6Addr {
    let spread = u128::from(prefix.wrapping_mul(0x9e37) & 0x1f_ffff);
    Ipv6Addr::from((0x2a_u128 << 120) | (spread << 80) | u128::from(host))
}

/// As many prefixes of each family, allowed by one rule; nothing else is.
pub(crate) fn prefixes(count: u32) -> Result<Policy> {
    let matches = (0..count / 2)
        .flat_map(|index| {
            [
                format!("{}/24", v4(index, 0)),
                format!("[{}/48]", v6(index, 0)),
            ]
        })
        .map(|text| Ok(text.parse()?))
        .collect::<Result<Vec<Match>>>()?;
    policy(vec![rule(Action::Allow, matches)])
}

/// One rule that allows all, and before it such as hold every destination and other ports.
fn overlapping(count: u16) -> Result<Policy> {
    let mut rules = Vec::new();
    for index in 0..count - 1 {
        let length = 8 + index % 9;
        let ports = format!("{}-{}", 100 + index * 40, 115 + index * 40);
        let matches = [
            format!("44.1.0.0/{length}"),
            format!("[2a00:1::]/{}", length + 8),
        ];
        // Bits beyond the length are no part of a prefix.
        let matches = matches.map(|net| net_of(&net, &ports));
        rules.push(rule(
            if index % 2 == 0 {
                Action::Deny
            } else {
                Action::Allow
            },
            matches.into_iter().collect::<Result<_>>()?,
        ));
    }
    let all = ["0.0.0.0/0", "[::/0]"].map(|net| net.parse());
    rules.push(rule(
        Action::Allow,
        all.into_iter().collect::<Result<_, _>>()?,
    ));
    policy(rules)
}

fn net_of(net: &str, ports: &str) -> Result<Match> {
    let plain: ipnet::IpNet = net.replace(['[', ']'], "").parse()?;
    let text = match plain.trunc() {
        ipnet::IpNet::V4(net) => format!("udp:{net}:{ports}"),
        ipnet::IpNet::V6(net) => format!("udp:[{net}]:{ports}"),
    };
    Ok(text.parse()?)
}

fn rule(action: Action, matches: Vec<Match>) -> Rule {
    Rule {
        action,
        matches,
        comment: None,
        source: Source::Flag {
            text: String::new(),
        },
    }
}

fn policy(rules: Vec<Rule>) -> Result<Policy> {
    let profile = Loaded {
        name: "bench".into(),
        path: None,
        rules: Vec::new(),
        default: given_default(Action::Deny),
    };
    Ok(Policy::new(rules, Dns::Auto, profile, None, false)?)
}
