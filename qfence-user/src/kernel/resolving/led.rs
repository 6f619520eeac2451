//! Queries that are led to the resolver, and their answers.

use std::net::SocketAddr;

use qfence_common::{Protocol, resolved::Resolver, verdict::UNLED};

use super::{
    super::testing::apart,
    bed::{Answering, Bed, RESOLVER},
};
use crate::policy::testing::locked;

const NAMED: &[&str] = &["allow tcp:example.com:443"];

const QUERIES: &str = "
print(asked(made(V4, UDP), '192.0.2.53', 53))
print(answered(made(V4, UDP), '192.0.2.53', 53))
print(asked(made(V4, TCP), '192.0.2.53', 53))
print(asked(made(V6, UDP), '2001:db8::53', 53))
print(answered(made(V6, UDP), '2001:db8::53', 53))
print(asked(made(V6, TCP), '2001:db8::53', 53))
print(asked(made(V6, UDP), '::ffff:192.0.2.54', 53))
print(answered(made(V6, UDP), '::ffff:192.0.2.54', 53))
print(asked(made(V6, TCP), '::ffff:192.0.2.54', 53))
print(answered(made(V4, UDP), '127.0.0.53', 53))
";

#[test]
fn queries_are_led_and_their_answers_come_from_whom_was_asked() {
    apart(|scene| {
        let answering = Answering::new();
        let mut bed = Bed::new(scene, locked(NAMED), answering.resolver);
        let seen = bed.run(QUERIES);
        let expected = [
            "a 192.0.2.53 53",
            "a 192.0.2.53 53",
            "a 192.0.2.53 53",
            "a 2001:db8::53 53",
            "a 2001:db8::53 53",
            "a 2001:db8::53 53",
            "a ::ffff:192.0.2.54 53",
            "a ::ffff:192.0.2.54 53",
            "a ::ffff:192.0.2.54 53",
            "a 127.0.0.53 53",
        ];
        assert_eq!(seen, expected);
        assert!(bed.refused().is_empty());
        // Each source is known to be the fence's, and another one is not.
        let asked = answering.asked();
        assert_eq!(asked.len(), expected.len());
        for (source, protocol) in asked {
            assert!(bed.is_of_fence(source, protocol));
            let other = SocketAddr::new(source.ip(), source.port() ^ 1);
            assert!(!bed.is_of_fence(other, protocol));
        }
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let unfenced = socket.local_addr().unwrap();
        socket
            .send_to(b"q", (RESOLVER, answering.resolver.port))
            .unwrap();
        assert!(!bed.is_of_fence(unfenced, Protocol::UDP));
    });
}

#[test]
fn a_connection_that_was_led_goes_on_when_standing_ones_are_judged() {
    apart(|scene| {
        let answering = Answering::new();
        let mut bed = Bed::new(scene, locked(NAMED), answering.resolver);
        bed.judge_standing();
        let script = "s = made(V4, TCP)\nprint(asked(s, '192.0.2.53', 53))\n\
                      print(said(lambda: s.send(b'q') and s.recv(16).decode()))";
        assert_eq!(bed.run(script), ["a 192.0.2.53 53", "a"]);
        assert!(bed.refused().is_empty());
    });
}

#[test]
fn mptcp_is_led_like_tcp() {
    apart(|scene| {
        let answering = Answering::new();
        let bed = Bed::new(scene, locked(NAMED), answering.resolver);
        let script = "
s = said(lambda: made(V4, TCP, 262))
print(s if isinstance(s, str) else asked(s, '192.0.2.53', 53).split()[0])";
        let seen = bed.run(script);
        // A kernel without MPTCP has no such sockets.
        assert!(seen == ["a"] || seen == ["EPROTONOSUPPORT"], "{seen:?}");
        assert_eq!(answering.asked().is_empty(), seen != ["a"]);
    });
}

#[test]
fn what_asks_the_resolver_itself_is_refused_like_the_host() {
    apart(|scene| {
        let answering = Answering::new();
        let mut bed = Bed::new(scene, locked(NAMED), answering.resolver);
        let port = answering.resolver.port;
        let script = format!(
            "print(connects(made(V4, TCP), '{RESOLVER}', {port}))\n\
             print(connects(made(V4, UDP), '{RESOLVER}', {port}))\n\
             print(sends(made(V4, UDP), '{RESOLVER}', {port}))\n\
             print(sends(made(V6, UDP), '::1', {port}))\n\
             print(sends(made(V4, UDP), '{RESOLVER}', 53))"
        );
        let seen = bed.run(&script);
        let refused = "ECONNREFUSED";
        // To its address, but to the port of nameservers, it is a query like any other.
        assert_eq!(seen, [refused, refused, refused, refused, "ok"]);
        assert!(!bed.refused().is_empty());
    });
}

#[test]
fn without_rules_by_name_nothing_is_led() {
    apart(|scene| {
        let answering = Answering::new();
        let mut bed = Bed::new(scene, locked(&[]), answering.resolver);
        assert_eq!(
            bed.run("print(sends(made(V4, UDP), '192.0.2.53', 53))"),
            ["ECONNREFUSED"]
        );
        let refused = bed.refused();
        assert!(!refused.is_empty() && !refused.contains(&UNLED));
        assert!(answering.asked().is_empty());
    });
}

#[test]
fn a_query_that_cannot_be_led_is_refused_for_that_reason() {
    const BOUND: &str = "
for family, to in (V4, '192.0.2.53'), (V6, '2001:db8::53'), (V6, '::ffff:192.0.2.53'):
    for kind in UDP, TCP:
        s = made(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'd0')
        print(connects(s, to, 53))
    s = made(family, UDP)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'd0')
    print(sends(s, to, 53))
";
    const PLAIN: &str = "print(answered(made(V4, UDP), '192.0.2.53', 53))";
    apart(|scene| {
        let answering = Answering::new();
        let mut bed = Bed::new(scene, locked(NAMED), answering.resolver);
        assert_eq!(bed.run(PLAIN), ["a 192.0.2.53 53"]);
        assert!(bed.refused().is_empty());
        assert_eq!(bed.run(BOUND), ["ECONNREFUSED"; 9]);
        assert_eq!(bed.refused(), [UNLED].into());
        bed.stop_following();
        assert_eq!(bed.run(PLAIN), ["ECONNREFUSED"]);
        assert_eq!(bed.refused(), [UNLED].into());
        bed.follow();
        assert_eq!(bed.run(PLAIN), ["a 192.0.2.53 53"]);
    });
    apart(|scene| {
        let answering = Answering::new();
        let without = Resolver {
            has_v6: 0,
            ..answering.resolver
        };
        let mut bed = Bed::new(scene, locked(NAMED), without);
        let script = "print(sends(made(V6, UDP), '2001:db8::53', 53))\n\
                      print(answered(made(V6, UDP), '::ffff:192.0.2.53', 53))";
        assert_eq!(bed.run(script), ["ECONNREFUSED", "a ::ffff:192.0.2.53 53"]);
        assert_eq!(bed.refused(), [UNLED].into());
    });
}

#[test]
fn queries_in_another_network_namespace_are_judged_by_the_policy() {
    apart(|scene| {
        let answering = Answering::new();
        let mut bed = Bed::new(scene, locked(NAMED), answering.resolver);
        // The first socket determines the home of the fence.
        assert_eq!(
            bed.run("print(answered(made(V4, UDP), '192.0.2.53', 53))"),
            ["a 192.0.2.53 53"]
        );
        answering.asked();
        let seen = bed.run_by(
            "exec unshare --net",
            "print(sends(made(V4, UDP), '192.0.2.53', 53))",
        );
        assert_eq!(seen, ["ECONNREFUSED"]);
        let refused = bed.refused();
        assert!(!refused.is_empty() && !refused.contains(&UNLED));
        assert!(answering.asked().is_empty());
    });
}
