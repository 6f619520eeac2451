//! The cases that `verify` tries: probes of the host, and traffic that must work.
//!
//! Each case is written in the syntax of `qfence-verify probe`. The addresses are those of the scene.

use super::internet::NAMESERVER;

/// A probe to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The probe, in the syntax of `qfence-verify probe`.
    pub spec: &'static str,
    /// Whether `exec --verify` makes it.
    pub short: bool,
}

impl Case {
    /// Whether it needs IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        // No part of an IPv4 attempt has a colon.
        self.spec.contains(':')
    }
}

const fn case(spec: &'static str) -> Case {
    Case { spec, short: false }
}

/// A case of the short form: it shows one layer, or one part of the traffic that must work.
const fn short(spec: &'static str) -> Case {
    Case { spec, short: true }
}

/// Every class of probe by which an unprivileged process can try to reach the host. None of them sends anything to the
/// internet: every packet that the witness sees counts as one that got through.
pub const PROBES: &[Case] = &[
    // Connections to each form of host address.
    short("tcp/127.0.0.1/8080"),
    case("tcp/0.0.0.0/8080"),
    case("tcp/127.9.9.9/8080"),
    case("tcp/192.0.2.10/8080"),
    case("tcp/203.0.113.5/8080"),
    short("tcp/::1/8080"),
    case("tcp/::/8080"),
    case("tcp/2001:db8:1::10/8080"),
    case("tcp/2001:db8:3::5/8080"),
    case("tcp/fe80::10%eth0/8080"),
    case("tcp/::ffff:127.0.0.1/8080"),
    case("tcp/::ffff:192.0.2.10/8080"),
    // The host's IPv4 address as a NAT64 translator spells it, which sends the packets back to the host.
    case("tcp/64:ff9b::192.0.2.10/8080"),
    case("udp/64:ff9b::192.0.2.10/8080"),
    // Connections, by other methods.
    case("tcp-fastopen/127.0.0.1/8080"),
    case("tcp-fastopen/::1/8080"),
    case("tcp-fastopen-connect/127.0.0.1/8080"),
    case("tcp-uring/127.0.0.1/8080"),
    case("tcp-uring/::1/8080"),
    case("mptcp/127.0.0.1/8080"),
    case("mptcp/::1/8080"),
    case("sctp/127.0.0.1/8080"),
    case("dccp/127.0.0.1/8080"),
    // Datagrams to each form of host address.
    short("udp/127.0.0.1/8080"),
    case("udp/0.0.0.0/8080"),
    case("udp/192.0.2.10/8080"),
    case("udp/203.0.113.5/8080"),
    short("udp/::1/8080"),
    case("udp/2001:db8:1::10/8080"),
    case("udp/fe80::10%eth0/8080"),
    case("udp/::ffff:127.0.0.1/8080"),
    case("udp/::ffff:192.0.2.10/8080"),
    // Datagrams, by other methods.
    short("udp-connected/192.0.2.10/8080"),
    case("udp-connected/2001:db8:1::10/8080"),
    case("udp-connected/::ffff:192.0.2.10/8080"),
    case("udp-sendmmsg/127.0.0.1/8080"),
    case("udp-gso/127.0.0.1/8080"),
    case("udp-gso/::1/8080"),
    case("udp-cork/127.0.0.1/8080"),
    case("udp-more/127.0.0.1/8080"),
    case("udp-large/192.0.2.10/8080"),
    case("udp-large/2001:db8:1::10/8080"),
    case("udp-zerocopy/127.0.0.1/8080"),
    case("udp-splice/127.0.0.1/8080"),
    case("udp-elsewhere/127.0.0.1/8080+decoy=198.51.100.7"),
    case("udp-reconnected/127.0.0.1/8080+decoy=198.51.100.7"),
    case("udp-uring/127.0.0.1/8080"),
    case("udp-uring-connected/127.0.0.1/8080"),
    case("udp/127.0.0.1/8080+on-v6"),
    // Broadcast and multicast: the host is among the receivers.
    short("udp/192.0.2.255/8080"),
    case("udp/255.255.255.255/8080"),
    case("udp/::ffff:192.0.2.255/8080"),
    case("udp/224.0.0.1/8080"),
    case("udp/239.1.2.3/8080"),
    case("udp/ff02::1%eth0/8080"),
    // The exception for DNS covers only port 53 of the nameserver.
    short("tcp/127.0.0.53/8080"),
    case("udp/127.0.0.1/53"),
    // Probes that pass the hooks of calls, so that a packet hook must refuse them.
    short("ping/127.0.0.1"),
    case("ping/192.0.2.10"),
    case("ping/192.0.2.255"),
    short("ping/192.0.2.255+compat"),
    case("ping/224.0.0.1"),
    case("ping-connected/192.0.2.10"),
    short("ping/::1"),
    case("ping/2001:db8:1::10"),
    case("ping-connected/2001:db8:1::10"),
    short("udp/198.51.100.7/8080+dev=lo"),
    case("tcp/198.51.100.7/8080+dev=lo"),
    case("udp/198.51.100.7/8080+unicast-if=lo"),
    case("udp/198.51.100.7/8080+pktinfo=lo"),
    // Addresses that are the host's by a route: AnyIP, a route to lo, policy routing.
    case("tcp/198.18.7.7/8080"),
    case("udp/198.18.7.7/8080"),
    case("udp/198.19.7.7/8080"),
    case("tcp/198.19.7.7/8080"),
    case("udp/198.19.8.8/8080"),
    case("tcp/198.19.8.8/8080+src=192.0.2.10"),
    case("udp/2001:db8:8::8/8080"),
    case("tcp/2001:db8:8::8/8080"),
    // Socket types that are refused in a fence.
    short("udplite/127.0.0.1/8080"),
    case("udplite-connected/127.0.0.1/8080"),
    case("udplite/::1/8080"),
    case("l2tp/192.0.2.10"),
    case("raw-icmp/127.0.0.1"),
    case("raw-udp/127.0.0.1/8080"),
    case("raw-253/127.0.0.1"),
    case("raw-header/127.0.0.1/8080"),
];

/// Traffic that must work in a fence: to the internet, and to the host's nameserver.
pub const MUST_WORK: &[Case] = &[
    short("tcp/198.51.100.7/8080"),
    short("tcp/2001:db8:2::7/8080"),
    case("tcp/::ffff:198.51.100.7/8080"),
    case("tcp/64:ff9b::198.51.100.7/8080"),
    case("udp/64:ff9b::198.51.100.7/8080"),
    case("tcp-fastopen/198.51.100.7/8080"),
    short("mptcp/198.51.100.7/8080"),
    case("mptcp/2001:db8:2::7/8080"),
    short("udp/198.51.100.7/8080"),
    short("udp/2001:db8:2::7/8080"),
    case("udp-connected/198.51.100.7/8080"),
    case("udp-connected/2001:db8:2::7/8080"),
    short("ping/198.51.100.7"),
    short("ping/2001:db8:2::7"),
    short("udp/127.0.0.53/53"),
    short("tcp/127.0.0.53/53"),
];

/// The text of the private host's resolv.conf.
#[must_use]
pub fn resolv_conf() -> String {
    format!("nameserver {NAMESERVER}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{probe::Probe, verify::services};

    #[test]
    fn each_is_a_probe_and_there_once() {
        let mut seen = HashSet::new();
        for case in PROBES.iter().chain(MUST_WORK) {
            let probe: Probe = case.spec.parse().unwrap();
            assert_eq!(
                probe.destination.address.is_ipv6(),
                case.is_v6(),
                "{case:?}"
            );
            assert!(probe.port == 0 || [services::PORT, services::DNS].contains(&probe.port));
            assert!(seen.insert(case.spec), "{case:?} is there twice");
            // The witness tells the packets of two probes apart by their source ports.
            assert_eq!(probe.options.source_port, None, "{case:?}");
        }
    }

    #[test]
    fn the_short_form_is_short_and_both_of_families() {
        let short: Vec<_> = PROBES.iter().filter(|case| case.short).collect();
        assert!(short.len() * 4 < PROBES.len(), "{}", short.len());
        assert!(short.iter().any(|case| case.is_v6()));
        assert!(MUST_WORK.iter().any(|case| case.short && case.is_v6()));
    }

    #[test]
    fn the_nameserver_is_the_one_that_must_work() {
        assert!(
            MUST_WORK
                .iter()
                .any(|case| case.spec == format!("udp/{NAMESERVER}/53"))
        );
    }
}
