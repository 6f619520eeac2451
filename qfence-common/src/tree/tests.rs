use super::*;
use crate::{Action, address::from_v4};

struct Tree<'a>(&'a [Node]);

impl Nodes for Tree<'_> {
    fn read(&self, index: usize) -> Option<Node> {
        self.0.get(index).copied()
    }
}

const DENY: Node = Node::of_verdict(Verdict::new(Action::Deny, 9));

fn allow(rule: u32) -> Node {
    Node::of_verdict(Verdict::new(Action::Allow, rule))
}

fn ask(nodes: &[Node], address: Address, protocol: Protocol, port: u16) -> Verdict {
    let query = Query::new(LookupPath::Address, address, protocol, port);
    let verdict = decide(&Tree(nodes), &query);
    for front in 0..=nodes.len() {
        let in_front = decide_in_front(&Tree(&nodes[..front]), &query);
        assert!(in_front.is_none_or(|found| found == verdict), "{front}");
    }
    verdict
}

fn any(address: Address) -> Query {
    Query::new(LookupPath::Address, address, Protocol::ANY, 0)
}

#[test]
fn nothing_to_go_by_is_denied() {
    let verdict = ask(&[], [0; 16], Protocol::TCP, 80);
    assert_eq!(verdict, Verdict::NONE);
    assert_eq!(verdict.action(), Action::Deny);
}

#[test]
fn slots_are_side_by_side_between_what_is_below_and_above() {
    let node = Node::of_slots(Part::Lower, 100, 3, 4, 50);
    let ways = [
        (0, 50),
        (99, 50),
        (100, 51),
        (107, 51),
        (108, 52),
        (131, 54),
        (132, 55),
        (u64::MAX, 55),
    ];
    for (part, index) in ways {
        assert_eq!(node.way(part), index, "{part}");
    }
    let begins = [
        (0, 50),
        (100, 51),
        (108, 52),
        (116, 53),
        (124, 54),
        (132, 55),
    ];
    assert!(node.ways().eq(begins));
    assert_eq!(DENY.ways().count(), 0);
}

#[test]
fn a_range_may_end_where_the_numbers_do() {
    let node = Node::of_slots(Part::Upper, 1, 63, 2, 50);
    assert_eq!(node.way(0), 50);
    assert_eq!(node.way(1 << 63), 51);
    assert_eq!(node.way((1 << 63) + 1), 52);
    assert_eq!(node.way(u64::MAX), 52);
    assert!(node.ways().eq([(0, 50), (1, 51), ((1 << 63) + 1, 52)]));
}

#[test]
fn each_family_has_a_root_on_each_path() {
    let roots: [Node; FLAGS] = core::array::from_fn(|rule| allow(u32::try_from(rule).unwrap()));
    for (path, v6, v4) in [(LookupPath::Address, 0, 1), (LookupPath::Loopback, 2, 3)] {
        for (address, rule) in [
            ([0; 16], v6),
            ([0xff; 16], v6),
            (from_v4([0; 4]), v4),
            (from_v4([255; 4]), v4),
        ] {
            let query = Query::new(path, address, Protocol::TCP, 80);
            assert_eq!(decide(&Tree(&roots), &query).rule(), rule);
        }
    }
}

#[test]
fn the_parts_are_asked_one_after_the_other() {
    let mut address = [0; 16];
    (address[0], address[15]) = (0x20, 7);
    let udp = |port| u64::from(port_query(Protocol::UDP, port));
    let nodes = [
        Node::of_slots(Part::Upper, 0x20 << 56, 56, 1, 1),
        DENY,
        Node::of_slots(Part::Lower, 7, 0, 1, 4),
        DENY,
        DENY,
        Node::of_slots(Part::Port, udp(53), 0, 1, 7),
        DENY,
        DENY,
        allow(1),
        DENY,
    ];
    let allows =
        |address, protocol, port| ask(&nodes, address, protocol, port).action() == Action::Allow;
    assert!(allows(address, Protocol::UDP, 53));
    assert!(!allows(address, Protocol::UDP, 52));
    assert!(!allows(address, Protocol::UDP, 54));
    assert!(!allows(address, Protocol::TCP, 53));
    for octet in [0, 15] {
        let mut other = address;
        other[octet] += 1;
        assert!(!allows(other, Protocol::UDP, 53));
    }
    let leaf = leaf(&Tree(&nodes), &any(address)).unwrap();
    assert!(leaf.looks_at(Part::Port));
}

#[test]
fn the_front_decides_if_the_whole_path_is_in_it() {
    // Each node leads to the next one, the last one to a verdict.
    let way = |first| Node::of_slots(Part::Upper, 1, 0, 1, first);
    let nodes = [
        way(1),
        DENY,
        way(3),
        DENY,
        way(5),
        DENY,
        way(7),
        DENY,
        way(9),
        DENY,
        allow(1),
    ];
    let ask_from = |root: usize, end: usize| {
        let query = Query {
            root,
            ..any([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
        };
        decide_in_front(&Tree(&nodes[..end]), &query)
    };
    let allowed = allow(1).verdict();
    for (root, expected) in [
        (10, allowed),
        (8, allowed),
        (4, allowed),
        (2, None),
        (0, None),
    ] {
        assert_eq!(ask_from(root, nodes.len()), expected, "{root}");
        assert_eq!(ask_from(root, nodes.len() - 1), None, "{root}");
    }
}

#[test]
fn the_front_has_the_first_nodes_and_nothing_beyond() {
    let nodes: [Node; FRONT + 1] =
        core::array::from_fn(|rule| allow(u32::try_from(rule).unwrap() + 1));
    let last = FRONT - 1;
    for length in [0, 1, FRONT, FRONT + 1] {
        let front = Front::of(&nodes[..length]);
        for index in 0..=last {
            let expected = nodes[..length].get(index).unwrap_or(&Node::NOWHERE);
            assert_eq!(front.read(index).as_ref(), Some(expected));
        }
        for beyond in [last + 1, usize::MAX] {
            assert_eq!(front.read(beyond), None);
        }
    }
    let end = Node::of_slots(Part::Upper, 0, 0, 0, u32::try_from(last).unwrap());
    let front = Front::of(&[end]);
    assert_eq!(decide_in_front(&front, &any([0; 16])), None, "it goes on");
}

#[test]
fn a_node_that_is_not_there_denies() {
    let nodes = [Node::of_slots(Part::Upper, 1, 0, 1, 7)];
    assert_eq!(ask(&nodes, [0; 16], Protocol::TCP, 1), Verdict::NONE);
}

#[test]
fn a_tree_without_an_end_denies() {
    let round = [Node::of_slots(Part::Upper, 1, 0, 1, 0)];
    assert_eq!(ask(&round, [0; 16], Protocol::UDP, 1), Verdict::NONE);
    assert_eq!(leaf(&Tree(&round), &any([0; 16])), None);
}

#[test]
fn zeroed_memory_refuses() {
    let node = Node {
        base: 0,
        first: 0,
        shape: 0,
    };
    let verdict = ask(&[node], [0; 16], Protocol::TCP, 1);
    assert_eq!(verdict.action(), Action::Deny);
}

#[test]
fn mptcp_is_tcp() {
    assert_eq!(
        port_query(Protocol::MPTCP, 80),
        port_query(Protocol::TCP, 80)
    );
    assert_ne!(port_query(Protocol::TCP, 80), port_query(Protocol::UDP, 80));
}
