//! Evaluates a policy by its documentation alone: rules one by one, of which the first match decides. It has no key
//! space, no nested prefixes, no trees, and no grants of names.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// A match of a rule.
#[derive(Clone, Debug)]
pub(crate) struct NaiveMatch {
    pub(crate) protocol: NaiveProtocol,
    pub(crate) to: To,
    /// Empty: every port, and protocols without ports.
    pub(crate) ports: Vec<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NaiveProtocol {
    Any,
    Icmp,
    Number(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    Net(IpNet),
    Set(&'static str),
    /// A name, or a star and a name.
    Name(&'static str),
}

/// The names that can be looked up.
pub(crate) const NAMES: [&str; 5] = [
    "example.org",
    "a.example.org",
    "b.example.org",
    "c.a.example.org",
    "other.example",
];

/// A rule: its action and its matches.
#[derive(Clone, Debug)]
pub(crate) struct NaiveRule {
    pub(crate) allow: bool,
    pub(crate) matches: Vec<NaiveMatch>,
}

/// The facts of the host from which the sets are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Its local routes.
    pub(crate) local: Vec<IpNet>,
    /// The local routes of type broadcast.
    pub(crate) broadcasts: Vec<IpNet>,
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) gateways: Vec<IpAddr>,
    /// Prefixes of NAT64 translators, of 96 bits.
    pub(crate) nat64: Vec<IpNet>,
}

/// A destination. A v4-mapped address is given as IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) protocol: u32,
    pub(crate) port: u16,
    /// Whether the packet leaves through the loopback device.
    pub(crate) loopback: bool,
    /// Whether a socket that was made in the fence listens there.
    pub(crate) own: bool,
    /// The names that were looked up, and have this address: a bit for each of [`NAMES`].
    pub(crate) names: u8,
}

/// The index of the rule that decides: the first one that matches. A rule by name allows nothing of the host, and of a
/// destination that a rule by address allows, that rule is on record.
pub(crate) fn first_match(rules: &[NaiveRule], host: &Host, target: &Target) -> Option<usize> {
    let by_address = rules
        .iter()
        .position(|rule| rule.matches.iter().any(|of| matches(of, host, target)));
    let is_denied = by_address.is_none_or(|first| !rules[first].allow);
    if !is_denied || is_in("host", host, target) {
        return by_address;
    }
    let names = looked_up(target).into_iter();
    let first = names.filter_map(|name| by_name(rules, name, target)).min();
    first
        .filter(|first| by_address.is_none_or(|by_address| *first < by_address))
        .or(by_address)
}

/// The index of the first rule that allows a name with the protocol and port, unless an earlier one denies the name, whatever
/// its protocol and port.
fn by_name(rules: &[NaiveRule], name: &str, target: &Target) -> Option<usize> {
    for (index, rule) in rules.iter().enumerate() {
        for of in &rule.matches {
            let To::Name(pattern) = of.to else {
                continue;
            };
            if !is_of_pattern(pattern, name) {
                continue;
            }
            if !rule.allow {
                return None;
            }
            if is_of_protocol(of, target.protocol) && is_of_ports(of, target) {
                return Some(index);
            }
        }
    }
    None
}

/// The names of the destination.
pub(crate) fn looked_up(target: &Target) -> Vec<&'static str> {
    let all = NAMES.iter().enumerate();
    let named = all.filter(|(bit, _)| target.names >> bit & 1 == 1);
    named.map(|(_, name)| *name).collect()
}

fn is_of_pattern(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(above) => name.ends_with(above),
        None => name == pattern,
    }
}

/// The index of the rule for `self` that allows a destination which is denied otherwise, if the listener is of the fence's own.
pub(crate) fn first_for_own(rules: &[NaiveRule], host: &Host, target: &Target) -> Option<usize> {
    let with = |own| first_match(rules, host, &Target { own, ..*target });
    let is_denied = with(false).is_none_or(|first| !rules[first].allow);
    with(true).filter(|first| is_denied && rules[*first].allow)
}

fn matches(of: &NaiveMatch, host: &Host, target: &Target) -> bool {
    let is_there = match of.to {
        To::Net(net) => net.contains(&target.address),
        To::Set(name) => is_in(name, host, target),
        // Of names, the look-up decides: see `by_name`.
        To::Name(_) => false,
    };
    is_there && is_of_protocol(of, target.protocol) && is_of_ports(of, target)
}

/// TCP, UDP, SCTP, DCCP and UDP-Lite.
fn has_ports(protocol: u32) -> bool {
    [6, 17, 132, 33, 136].contains(&protocol)
}

/// To a rule, an MPTCP socket is a TCP socket.
fn number(protocol: u32) -> u32 {
    if protocol == 262 { 6 } else { protocol }
}

fn is_of_protocol(of: &NaiveMatch, protocol: u32) -> bool {
    let protocol = number(protocol);
    match of.protocol {
        NaiveProtocol::Number(number) => u32::from(number) == protocol,
        NaiveProtocol::Icmp => protocol == 1 || protocol == 58,
        NaiveProtocol::Any if matches!(of.to, To::Set("dns")) => protocol == 17 || protocol == 6,
        NaiveProtocol::Any if matches!(of.to, To::Set("self")) => {
            protocol == 6 || (protocol == 17 && !of.ports.is_empty())
        }
        NaiveProtocol::Any => of.ports.is_empty() || has_ports(protocol),
    }
}

fn is_of_ports(of: &NaiveMatch, target: &Target) -> bool {
    if !of.ports.is_empty() {
        let mut ranges = of.ports.iter();
        return ranges.any(|(first, last)| (first..=last).contains(&&target.port));
    }
    if matches!(of.to, To::Set("self")) {
        return target.port >= 1024;
    }
    let is_dns = matches!(of.to, To::Set("dns"));
    !is_dns || !has_ports(number(target.protocol)) || target.port == 53
}

const ALWAYS_HOST: [&str; 7] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "ff00::/8",
];
const LOOPBACK: [&str; 4] = ["127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"];
const LAN: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "fec0::/10",
];
const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];
const METADATA: [&str; 17] = [
    "169.254.169.254/32",
    "fd00:ec2::254/128",
    "169.254.170.2/32",
    "169.254.170.23/32",
    "fd00:ec2::23/128",
    "fd20:ce::254/128",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "fd00:100::100:200/128",
    "fd00:c1::a9fe:a9fe/128",
    "192.0.0.192/32",
    "169.254.42.42/32",
    "fd00:42::42/128",
    "fd00:a9fe:a9fe::1/128",
    "fe80::a9fe:a9fe/128",
    "169.254.0.23/32",
    "100.96.0.96/32",
];
const MULTICAST: [&str; 3] = ["224.0.0.0/4", "ff00::/8", "255.255.255.255/32"];

/// The prefixes of sets that do not depend on the host, for destinations at their edges.
pub(crate) fn fixed_prefixes() -> impl Iterator<Item = IpNet> {
    let all = ALWAYS_HOST.iter().chain(&LAN).chain(&LINK_LOCAL);
    all.chain(&METADATA).map(|text| text.parse().unwrap())
}

fn is_in(name: &str, host: &Host, target: &Target) -> bool {
    let address = target.address;
    match name {
        "any" => true,
        "host" => {
            let is_own = |address| {
                let mut known = host.local.iter().chain(&host.broadcasts);
                is_one_of(&ALWAYS_HOST, address) || known.any(|net| net.contains(&address))
            };
            target.loopback || is_own(address) || is_own(translated(host, address))
        }
        "self" => {
            let mut broadcasts = host.broadcasts.iter();
            let has_many =
                is_one_of(&MULTICAST, address) || broadcasts.any(|net| net.contains(&address));
            target.own && is_in("host", host, target) && !has_many
        }
        "loopback" => is_one_of(&LOOPBACK, address),
        "dns" => host.nameservers.contains(&address),
        "gateway" => host.gateways.contains(&address),
        "lan" => is_one_of(&LAN, address) || is_one_of(&LAN, translated(host, address)),
        "link-local" => {
            is_one_of(&LINK_LOCAL, address) || is_one_of(&LINK_LOCAL, translated(host, address))
        }
        "metadata" => {
            is_one_of(&METADATA, address) || is_one_of(&METADATA, translated(host, address))
        }
        "multicast" => is_one_of(&MULTICAST, address),
        "internet" => ![
            "host",
            "loopback",
            "lan",
            "link-local",
            "metadata",
            "multicast",
        ]
        .iter()
        .any(|name| is_in(name, host, target)),
        other => panic!("{other} is no set"),
    }
}

fn is_one_of(nets: &[&str], address: IpAddr) -> bool {
    nets.iter()
        .any(|net| net.parse::<IpNet>().unwrap().contains(&address))
}

/// The IPv4 address to which a NAT64 router translates an address of 64:ff9b::/96, or of a prefix of this host's network.
/// Other addresses are unchanged.
fn translated(host: &Host, address: IpAddr) -> IpAddr {
    let well_known: IpNet = "64:ff9b::/96".parse().unwrap();
    match address {
        IpAddr::V6(v6)
            if host
                .nat64
                .iter()
                .chain([&well_known])
                .any(|net| net.contains(&address)) =>
        {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::from([a, b, c, d])
        }
        _ => address,
    }
}

/// The address in its own family: v4-mapped addresses become IPv4.
pub(crate) fn canonical(address: Ipv6Addr) -> IpAddr {
    address.to_canonical()
}
