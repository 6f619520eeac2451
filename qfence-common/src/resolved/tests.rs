extern crate std;

use std::{vec, vec::Vec};

use super::*;
use crate::{Action, Protocol, tree::HEAD, tree::port_query, verdict::HOST};

struct Tree(Vec<Node>);

impl Nodes for Tree {
    fn read(&self, index: usize) -> Option<Node> {
        self.0.get(index).copied()
    }
}

fn number(number: u32) -> Node {
    Node::of_verdict(Verdict::from_bits(number))
}

fn denied(rule: u32) -> Verdict {
    Verdict::new(Action::Deny, rule).with(crate::verdict::NAMED)
}

/// Rule 0 denies something and is tried second. Rule 1 is by name: group 0 has TCP port 443, group 1 everything. It is tried
/// first. Rule 2 is the default. Rule 3 is by name, after it.
fn tree() -> Tree {
    let end = u32::try_from(HEAD).unwrap();
    let port = port_query(Protocol::TCP, 443);
    let nowhere = Node::NOWHERE;
    let allow = |rule| Node::of_verdict(Verdict::new(Action::Allow, rule));
    let mut nodes = vec![nowhere; HEAD];
    nodes[NAMED_RULES] = Node::of_slots(Part::Port, 0, 0, 4, end);
    nodes.extend([
        nowhere,
        number(1),
        Node::of_slots(Part::Port, 1, 0, 2, end + 6),
        number(2),
        Node::of_slots(Part::Port, 1, 0, 1, end + 13),
        nowhere,
    ]);
    nodes.extend([
        number(0),
        Node::of_slots(Part::Port, u64::from(port), 0, 1, end + 10),
        allow(1),
        nowhere,
    ]);
    nodes.extend([nowhere, allow(1), nowhere]);
    nodes.extend([number(3), allow(3), nowhere]);
    Tree(nodes)
}

fn grants(given: &[(u32, u32)]) -> [Grant; GRANTS] {
    let mut grants = [Grant::NONE; GRANTS];
    for (place, &(rule, group)) in grants.iter_mut().zip(given) {
        *place = Grant::new(rule, group).unwrap();
    }
    grants
}

fn decided(by: u32, given: &[(u32, u32)], port: u16) -> Verdict {
    let query = port_query(Protocol::TCP, port);
    decide_by_name(&tree(), denied(by), query, &grants(given))
}

#[test]
fn a_grant_allows_the_ports_of_its_group_if_its_rule_is_tried_first() {
    let allowed = Verdict::new(Action::Allow, 1);
    for by in [0, 2] {
        assert_eq!(decided(by, &[(1, 0)], 443), allowed);
        assert_eq!(decided(by, &[(1, 0)], 442), denied(by));
        assert_eq!(decided(by, &[(1, 0)], 444), denied(by));
        assert_eq!(decided(by, &[(1, 1)], 444), allowed);
        assert_eq!(decided(by, &[(1, 0), (1, 1)], 444), allowed);
        assert_eq!(decided(by, &[], 443), denied(by));
        assert_eq!(decided(by, &[(3, 0)], 443), denied(by), "it is tried later");
        assert_eq!(decided(by, &[(3, 0), (1, 0)], 443), allowed);
    }
}

#[test]
fn of_several_grants_the_rule_decides_that_is_tried_first() {
    let mut tree = tree();
    // Rule 3 is tried before the default now.
    tree.0[HEAD + 3] = number(3);
    tree.0[HEAD + 13] = number(2);
    let port = port_query(Protocol::TCP, 443);
    for (given, by) in [
        (&[(3, 0)][..], 3),
        (&[(3, 0), (1, 0)], 1),
        (&[(1, 0), (3, 0)], 1),
    ] {
        let decided = decide_by_name(&tree, denied(2), port, &grants(given));
        assert_eq!(decided, Verdict::new(Action::Allow, by), "{given:?}");
    }
}

#[test]
fn a_grant_of_what_is_not_in_the_policy_allows_nothing() {
    for given in [
        (1, 2),
        (1, 62),
        (0, 0),
        (2, 0),
        (4, 0),
        (1000, 0),
        (1023, 62),
    ] {
        assert_eq!(decided(2, &[given], 443), denied(2), "{given:?}");
    }
    for by in [4, 1000, crate::verdict::NO_RULE, crate::verdict::UNPARSED] {
        assert_eq!(decided(by, &[(1, 1)], 443), denied(by), "{by}");
    }
    let empty = Tree(vec![Node::NOWHERE; HEAD]);
    let of = |nodes: &Tree| decide_by_name(nodes, denied(2), 0, &grants(&[(1, 1)]));
    assert_eq!(of(&empty), denied(2));
    assert_eq!(of(&Tree(Vec::new())), denied(2));
}

#[test]
fn of_the_flags_only_monitor_mode_remains() {
    let verdict = denied(2).with(MONITOR | HOST);
    let allowed = decide_by_name(&tree(), verdict, 0, &grants(&[(1, 1)]));
    assert_eq!(allowed, Verdict::new(Action::Allow, 1).with(MONITOR));
}

#[test]
fn a_grant_is_its_rule_and_group() {
    for rule in [0, 7, MAX_RULES - 1] {
        for group in [0, 5, MAX_GROUPS - 1] {
            let grant = Grant::new(rule, group).unwrap();
            assert_eq!((grant.rule(), grant.group()), (rule, group));
            assert_ne!(grant, Grant::NONE);
        }
        assert_eq!(Grant::new(rule, MAX_GROUPS), None);
    }
    assert_eq!(Grant::new(MAX_RULES, 0), None);
}

#[test]
fn use_moves_the_end_up_to_a_limit() {
    let resolved = |expires_ns, until_ns| Resolved {
        expires_ns,
        until_ns,
        grants: [Grant::NONE; GRANTS],
    };
    let plenty = resolved(100, u64::MAX);
    assert!(!plenty.is_over(99) && plenty.is_over(100));
    assert_eq!(plenty.expires_after_use(50), 50 + USED_FOR_NS);
    assert_eq!(
        resolved(USED_FOR_NS * 2, u64::MAX).expires_after_use(0),
        USED_FOR_NS * 2
    );
    let limited = resolved(100, 200);
    assert_eq!(limited.expires_after_use(50), 200);
    assert!(resolved(300, 200).is_over(200));
}

#[test]
fn the_resolver_is_known_by_address_and_port() {
    let resolver = Resolver {
        netns: 1,
        v4: 0x7f53_0102,
        port: 5300,
        has_v6: 1,
    };
    let v4 = Halves::from_v4(0x7f53_0102);
    let v6 = Halves { upper: 0, lower: 1 };
    assert!(resolver.is(v4, 5300) && resolver.is(v6, 5300));
    assert!(!resolver.is(v4, 53) && !resolver.is(Halves::from_v4(0x7f00_0001), 5300));
    assert!(
        !Resolver {
            has_v6: 0,
            ..resolver
        }
        .is(v6, 5300)
    );
    let none = Resolver::default();
    assert!(!none.is(Halves::from_v4(0), 0) && !none.is(v6, 0));
}
