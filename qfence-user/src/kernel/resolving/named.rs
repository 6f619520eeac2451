//! Verdicts by name, on calls and packets.

use std::time::Duration;

use super::{
    super::testing::apart,
    bed::{Answering, Bed, FAR, OTHER, now},
};
use crate::policy::testing::locked;

const RULE: &str = "allow tcp:example.com:443 udp:example.com:443";
const HOUR: Duration = Duration::from_hours(1);
const SECOND_NS: u64 = 1_000_000_000;

/// Tries TCP and UDP by both kinds of calls, at an address and its port 443, and at other ports and addresses.
fn script(mapped: bool) -> String {
    let (family, prefix) = if mapped {
        ("V6", "::ffff:")
    } else {
        ("V4", "")
    };
    format!(
        "for to in [('{prefix}{FAR}', 443), ('{prefix}{FAR}', 80), ('{prefix}{OTHER}', 443)]:\n    \
             print(begins(made({family}, TCP), *to), connects(made({family}, UDP), *to), sends(made({family}, UDP), *to))"
    )
}

const REFUSED: &str = "ECONNREFUSED ECONNREFUSED ECONNREFUSED";
const OK: &str = "ok ok ok";

#[test]
fn a_rule_by_name_allows_its_ports_of_an_address_while_that_is_in_force() {
    apart(|scene| {
        let resolver = Answering::new();
        let mut bed = Bed::new(scene, locked(&[RULE]), resolver.resolver);
        let grants = bed.grants("example.com");
        assert!(!grants.is_empty());
        for mapped in [false, true] {
            assert_eq!(bed.run(&script(mapped)), [REFUSED; 3]);
            bed.addresses
                .put(FAR.parse().unwrap(), &grants, HOUR)
                .unwrap();
            let before = bed.hits(RULE);
            assert_eq!(bed.run(&script(mapped)), [OK, REFUSED, REFUSED]);
            assert_eq!(bed.hits(RULE), before + 3);
            bed.addresses.remove(FAR.parse().unwrap()).unwrap();
        }
        assert_eq!(bed.run(&script(false)), [REFUSED; 3]);
    });
}

#[test]
fn what_is_over_allows_nothing_and_use_makes_it_last_longer() {
    apart(|scene| {
        let resolver = Answering::new();
        let mut bed = Bed::new(scene, locked(&[RULE]), resolver.resolver);
        let (far, grants) = (FAR.parse().unwrap(), bed.grants("example.com"));
        bed.addresses.put(far, &grants, Duration::ZERO).unwrap();
        assert_eq!(bed.addresses.list().unwrap().len(), 1);
        assert_eq!(bed.run(&script(false)), [REFUSED; 3]);
        bed.addresses.sweep(now()).unwrap();
        assert!(bed.addresses.list().unwrap().is_empty());

        // Longer than the script takes, and shorter than use makes it last.
        let lasts = Duration::from_secs(55);
        bed.addresses.put(far, &grants, lasts).unwrap();
        let before = bed.addresses.list().unwrap()[0].1;
        assert_eq!(bed.run(&script(false))[0], OK);
        let after = bed.addresses.list().unwrap()[0].1;
        assert!(after.expires_ns > before.expires_ns + SECOND_NS);
        assert_eq!(after.until_ns, before.until_ns);

        // A grant of the rule that is taken away takes the address with it.
        bed.addresses.retain(|_, _| false).unwrap();
        assert!(bed.addresses.list().unwrap().is_empty());
        assert_eq!(bed.run(&script(false)), [REFUSED; 3]);
    });
}

#[test]
fn no_name_opens_the_host_and_an_earlier_rule_decides() {
    apart(|scene| {
        let resolver = Answering::new();
        let deny = format!("deny {OTHER}");
        let rules = [deny.as_str(), "allow udp:example.com:1-65535"];
        let mut bed = Bed::new(scene, locked(&rules), resolver.resolver);
        let grants = bed.grants("example.com");
        for address in [FAR, OTHER, "127.0.0.1", "10.77.0.1"] {
            bed.addresses
                .put(address.parse().unwrap(), &grants, HOUR)
                .unwrap();
        }
        let script = format!(
            "for to in ['{FAR}', '{OTHER}', '127.0.0.1', '10.77.0.1']:\n    print(sends(made(V4, UDP), to, 443))"
        );
        assert_eq!(
            bed.run(&script),
            ["ok", "ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"]
        );
    });
}
