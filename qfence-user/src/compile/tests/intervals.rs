use qfence_common::{Action, Node, Verdict};

use crate::compile::intervals::{Flattened, Intervals, split, v4_of, without_v4};

fn step(rule: u32) -> Node {
    Node::of_verdict(Verdict::new(Action::Allow, rule))
}

fn flat(prefixes: &[(&str, u32)]) -> Intervals {
    let mut flattened = Flattened::default();
    for (prefix, rule) in prefixes {
        flattened.add(prefix.parse().unwrap(), step(*rule));
    }
    flattened.finish()
}

fn at(address: &str) -> u128 {
    address.parse::<std::net::Ipv6Addr>().unwrap().to_bits()
}

#[test]
fn what_is_around_a_prefix_goes_on_behind_it() {
    assert_eq!(
        flat(&[
            ("::/0", 0),
            ("2001::/16", 1),
            ("2001:db8::/32", 2),
            ("2001:db8::1/128", 3)
        ]),
        [
            (0, step(0)),
            (at("2001::"), step(1)),
            (at("2001:db8::"), step(2)),
            (at("2001:db8::1"), step(3)),
            (at("2001:db8::2"), step(2)),
            (at("2001:db9::"), step(1)),
            (at("2002::"), step(0)),
        ]
    );
}

#[test]
fn neighbours_that_say_the_same_are_one() {
    assert_eq!(
        flat(&[
            ("::/0", 0),
            ("2000::/16", 1),
            ("2001::/16", 1),
            ("2001:1::/32", 1),
            ("2002::/16", 0)
        ]),
        [
            (0, step(0)),
            (at("2000::"), step(1)),
            (at("2002::"), step(0))
        ]
    );
    assert_eq!(flat(&[("::/0", 0), ("::/1", 0)]), [(0, step(0))]);
}

#[test]
fn the_ends_of_the_space_are_prefixes_like_others() {
    assert_eq!(
        flat(&[("::/0", 0), ("::/128", 1)]),
        [(0, step(1)), (1, step(0))]
    );
    assert_eq!(
        flat(&[
            ("::/0", 0),
            ("ffff::/16", 1),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 2)
        ]),
        [(0, step(0)), (at("ffff::"), step(1)), (u128::MAX, step(2))]
    );
}

#[test]
fn ipv4_is_cut_out() {
    let all = flat(&[
        ("::/0", 0),
        ("::fffe:0:0/95", 1),
        ("::ffff:7f00:0/104", 2),
        ("::1:0:0:0/80", 3),
    ]);
    assert_eq!(
        v4_of(&all),
        [
            (0, step(1)),
            (0xffff_7f00_0000, step(2)),
            (0xffff_8000_0000, step(1))
        ]
    );
    assert_eq!(
        without_v4(&all),
        [
            (0, step(0)),
            (0xfffe_0000_0000, step(1)),
            (1 << 48, step(3)),
            (2 << 48, step(0))
        ]
    );
    let alone = flat(&[("::/0", 0), ("::ffff:0:0/96", 1)]);
    assert_eq!(v4_of(&alone), [(0, step(1))]);
    assert_eq!(without_v4(&alone), [(0, step(0))]);
    let to_its_end = flat(&[("::/0", 0), ("::ffff:ff00:0/104", 1)]);
    assert_eq!(without_v4(&to_its_end), [(0, step(0))]);
}

#[test]
fn a_half_that_is_cut_has_all_its_pieces() {
    let all = flat(&[
        ("::/0", 0),
        ("2001::/16", 1),
        ("2001:1::7/128", 2),
        ("fe80::/64", 3),
        ("fe80::1/128", 4),
    ]);
    assert_eq!(
        split(&all),
        [
            (0, vec![(0, step(0))]),
            (0x2001 << 48, vec![(0, step(1))]),
            (
                0x2001_0001 << 32,
                vec![(0, step(1)), (7, step(2)), (8, step(1))]
            ),
            ((0x2001_0001 << 32) + 1, vec![(0, step(1))]),
            (0x2002 << 48, vec![(0, step(0))]),
            (0xfe80 << 48, vec![(0, step(3)), (1, step(4)), (2, step(3))]),
            ((0xfe80 << 48) + 1, vec![(0, step(0))]),
        ]
    );
}

#[test]
fn halves_side_by_side_end_where_the_next_begins() {
    let all = flat(&[
        ("::/0", 0),
        ("2001::ffff:ffff:ffff:ffff/128", 1),
        ("2001:0:0:1::/128", 2),
    ]);
    let half = 0x2001 << 48;
    assert_eq!(
        split(&all),
        [
            (0, vec![(0, step(0))]),
            (half, vec![(0, step(0)), (u64::MAX, step(1))]),
            (half + 1, vec![(0, step(2)), (1, step(0))]),
            (half + 2, vec![(0, step(0))]),
        ]
    );
}
