//! Verdicts by name, on calls and packets.

use std::time::Duration;

use qfence_common::resolved::{Grant, Resolved};

use super::{
    super::testing::apart,
    bed::{Answering, Bed, FAR, OTHER, now},
};
use crate::{kernel::resolved::Addresses, policy::testing::locked};

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
        let (mut ended, over) = (Vec::new(), bed.addresses.list().unwrap()[0].1);
        let note = |address, at_ns| ended.push((address, at_ns));
        bed.addresses.sweep(now(), note).unwrap();
        assert_eq!(ended, [(far, over.expires_ns)]);
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
fn an_address_that_another_process_removes_meanwhile_is_not_put_back() {
    apart(|scene| {
        let resolver = Answering::new();
        let mut bed = Bed::new(scene, locked(&[RULE]), resolver.resolver);
        let (far, first) = (FAR.parse().unwrap(), bed.grants("example.com")[0]);
        let second = Grant::new(first.rule(), first.group() + 1).unwrap();
        let mut other = Addresses::open(bed.pins()).unwrap();
        for removes in [false, true] {
            bed.addresses.put(far, &[first, second], HOUR).unwrap();
            let keep = |address, grant| {
                if removes {
                    other.remove(address).unwrap();
                }
                grant != second
            };
            bed.addresses.retain(keep).unwrap();
            let left = bed.addresses.list().unwrap();
            assert_eq!(left.is_empty(), removes, "{left:?}");
        }
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

/// Sends to an address every tenth of a second until that is refused. Prints for each time when it began and ended, and the
/// result.
const UNTIL_REFUSED: &str = "
import time
now = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)
s, word = made(V4, UDP), 'ok'
while word == 'ok':
    begin = now()
    word = sends(s, ADDRESS, 443)
    print(begin, now(), word)
    time.sleep(0.1)
";

/// Nobody sweeps here, as after the end of a supervisor.
#[test]
fn without_a_resolver_an_address_ends_by_its_time_however_much_it_is_used() {
    apart(|scene| {
        let resolver = Answering::new();
        let mut bed = Bed::new(scene, locked(&[RULE]), resolver.resolver);
        let far = FAR.parse().unwrap();
        bed.addresses
            .put(far, &bed.grants("example.com"), HOUR)
            .unwrap();
        let grants = bed.addresses.list().unwrap()[0].1.grants;
        let script = UNTIL_REFUSED.replace("ADDRESS", &format!("'{FAR}'"));
        // Longer ones, if the processor has so much else to do that all of it comes too late.
        let mut is_seen = false;
        for seconds in [1, 4, 16] {
            let (start, lasts) = (now(), seconds * SECOND_NS);
            let entry = Resolved {
                expires_ns: start + lasts,
                until_ns: start + 3 * lasts,
                grants,
            };
            bed.addresses.write(far, entry).unwrap();
            is_seen |= is_prolonged(&entry, &bed.run(&script));
            let after = bed.addresses.list().unwrap()[0].1;
            assert_eq!(after.until_ns, entry.until_ns);
            if is_seen {
                break;
            }
        }
        assert!(is_seen, "use never made it last longer");
    });
}

/// Checks what was sent to an address against its times. Returns whether use has made it last longer.
fn is_prolonged(entry: &Resolved, lines: &[String]) -> bool {
    let (mut end_ns, mut is_prolonged) = (entry.expires_ns, false);
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [begin, end] = [0, 1].map(|at| words[at].parse::<u64>().unwrap());
        match words[2] {
            "ok" => {
                assert!(begin < end_ns, "{line}");
                is_prolonged |= begin >= entry.expires_ns;
                // Use makes it last a minute, but not beyond this.
                end_ns = entry.until_ns;
            }
            "ECONNREFUSED" => assert!(end >= end_ns, "{line}"),
            other => panic!("{other}"),
        }
    }
    is_prolonged
}
