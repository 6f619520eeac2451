use std::collections::BTreeSet;

use qfence_common::tree::{HEAD, Part};

use super::*;

#[test]
fn without_a_set_the_host_is_what_comes_over_loopback() {
    let policy = testing::policy(&[], false);
    let compiled = compile(&policy.rules(), &Sets::default(), false).unwrap();
    assert_eq!(compiled.intervals, 2);
    assert_eq!(compiled.nodes.len(), HEAD);
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "127.0.0.1", 80),
        Action::Allow
    );
    let through_loopback = on(
        LookupPath::Loopback,
        &compiled,
        Protocol::TCP,
        "1.1.1.1",
        80,
    );
    assert_eq!(through_loopback, Action::Deny);
}

#[test]
fn what_says_the_same_as_what_is_around_it_cuts_nothing() {
    let count = |rules| compiled(rules, "").intervals;
    let nested = count(&["allow 10.0.0.0/8", "allow 10.1.0.0/16", "allow 10.1.2.3"]);
    assert_eq!(nested, count(&["allow 10.0.0.0/8"]));
    assert!(nested > count(&[]));
}

#[test]
fn more_ports_than_fit_are_an_error_that_names_the_rules() {
    let every_other: Vec<String> = (0..32_767).map(|port| (2 * port + 1).to_string()).collect();
    let every_other = every_other.join(",");
    let rules: Vec<_> = (1..=17)
        .map(|at| format!("allow tcp:10.0.0.{at}:{every_other}"))
        .collect();
    let compiled = |rules: &[String]| {
        let rules: Vec<_> = rules
            .iter()
            .map(String::as_str)
            .chain(["deny any"])
            .collect();
        compile(&testing::policy(&rules, false).rules(), &sets(""), false)
    };
    assert!(compiled(&rules[..7]).is_ok());
    let error = compiled(&rules).unwrap_err();
    assert_eq!(error.pieces, 65_535);
    let words = error.to_string();
    assert!(
        words.contains("divide 10.0.0.17 into 65535 pieces"),
        "{words}"
    );
    assert!(error.rules.contains("allow tcp:10.0.0.17:1,3,5"), "{words}");
}

#[test]
fn thousands_of_prefixes_are_all_told_apart() {
    let nets = |at: u32| {
        let spread = at.wrapping_mul(0x9e37) & 0xffff;
        let v4 = format!("44.{}.{}.{}/31", spread >> 8, spread & 0xff, at & 0xfe);
        [
            v4,
            format!("[2a00:{spread:x}::{at:x}]"),
            format!("[2a01:{spread:x}:{at:x}::/64]"),
        ]
    };
    let rule = (0..2000)
        .flat_map(nets)
        .fold("allow".to_owned(), |all, net| all + " " + &net);
    let compiled = compiled(&[&rule, "deny any"], "");
    for at in 0..2000 {
        for net in nets(at) {
            let bare = net.trim_matches(['[', ']']);
            let bare = bare.split('/').next().unwrap();
            let address: IpAddr = bare.parse().unwrap();
            let verdict = |address: IpAddr| {
                compiled
                    .decide(LookupPath::Address, Protocol::TCP, address, 80)
                    .action()
            };
            assert_eq!(verdict(address), Action::Allow, "{net}");
            let beside = match address {
                IpAddr::V4(v4) => IpAddr::from(v4.to_bits().wrapping_sub(1).to_be_bytes()),
                IpAddr::V6(v6) => IpAddr::from(v6.to_bits().wrapping_sub(1).to_be_bytes()),
            };
            assert_eq!(verdict(beside), Action::Deny, "beside {net}");
        }
    }
}

#[test]
fn a_set_within_itself_is_tried_once() {
    let mut sets = sets("");
    sets.host.extend([single("127.0.0.1".parse().unwrap())]);
    let policy = testing::policy(&["allow tcp:host:80"], false);
    let compiled = compile(&policy.rules(), &sets, false).unwrap();
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "127.0.0.1", 80),
        Action::Allow
    );
    let begins = compiled
        .nodes
        .iter()
        .filter(|node| node.looks_at(Part::Port));
    let distinct: BTreeSet<u64> = begins
        .flat_map(Node::ways)
        .map(|(begins, _)| begins)
        .filter(|begins| *begins >> 16 == u64::from(Protocol::TCP.0))
        .collect();
    assert_eq!(distinct.len(), 2);
}
