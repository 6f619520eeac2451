use std::{net::Ipv6Addr, sync::Arc};

use qfence_common::{
    AttemptKey, Comm, Halves, Hook, Origin,
    address::from_v4,
    verdict::{self, NO_RULE},
};

use super::*;
use crate::{
    policy::{names::Names, testing},
    record::{operation::Operation, process::Process},
};

/// An attempt as the programs report it.
pub(crate) fn seen(
    hook: Hook,
    address: [u8; 16],
    protocol: u32,
    port: u32,
    rule: u32,
) -> (AttemptKey, Origin) {
    let mut comm = [0; 16];
    comm[..6].copy_from_slice(b"qe\x1bmu\n");
    let key = AttemptKey {
        address: Halves::of(address),
        pid: 4242,
        port,
        protocol,
        hook: hook as u32,
        rule,
        monitored: 0,
    };
    let origin = Origin {
        boot_ns: 1_500_000_000,
        cgroup: 77,
        netns: 5,
        source: Halves::of(from_v4([10, 0, 0, 7])),
        comm: Comm(comm),
        tid: 4243,
        uid: 65534,
        source_port: 40000,
        flags: 0,
    };
    (key, origin)
}

/// The line of a first attempt.
pub(crate) fn line(hook: Hook, address: [u8; 16], protocol: u32, port: u32, rule: u32) -> Line {
    let (key, origin) = seen(hook, address, protocol, port, rule);
    let name = Names::of(&testing::policy(&[], false)).name(rule);
    Line {
        v: VERSION,
        time: at(Timestamp::UNIX_EPOCH, origin.boot_ns),
        fence: "vm1".into(),
        workload: None,
        seq: 1,
        body: Body::Attempt(
            Attempt::new(&key, None, &origin, name, &Process::default())
                .unwrap()
                .into(),
        ),
        count: 1,
        total: 1,
        beside: 0,
    }
}

fn loopback() -> Line {
    line(Hook::Connect6, from_v4([127, 0, 0, 1]), 6, 22, 1)
}

fn attempt(line: Line) -> Box<Attempt> {
    match line.body {
        Body::Attempt(attempt) => attempt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_has_the_workload_beside_its_cgroup() {
    let workload = Some("unit web\x1b.service".into());
    let line = Line {
        workload,
        ..loopback()
    };
    let text = line.to_string();
    let words = " cgroup 77 of unit web\\x1b.service rule deny host";
    assert!(text.ends_with(words), "{text}");
}

#[test]
fn text_is_one_line_that_reads() {
    assert_eq!(
        loopback().to_string(),
        "1970-01-01T00:00:01.500000Z vm1 denied tcp 127.0.0.1:22 connect6 pid 4242 \
         (qe\\x1bmu\\x0a) cgroup 77 rule deny host"
    );
    let v6 = line(Hook::Connect6, Ipv6Addr::LOCALHOST.octets(), 6, 22, NO_RULE);
    assert!(v6.to_string().contains("denied tcp [::1]:22 connect6"));
    let mut unknown = attempt(loopback());
    (unknown.pid, unknown.command) = (None, String::new());
    assert!(
        unknown
            .to_string()
            .contains(" connect6 pid unknown cgroup 77 rule ")
    );
    let mut dialled = attempt(loopback());
    dialled.dialled = Some([10, 0, 2, 2].into());
    assert!(
        dialled
            .to_string()
            .starts_with("denied tcp 127.0.0.1:22 (dialled 10.0.2.2:22) connect6 ")
    );
}

#[test]
fn a_connect_of_udp_to_an_address_of_a_name_is_told_apart() {
    let mark = "(perhaps to sort addresses: nothing was sent)";
    let text = |hook, protocol, name: Option<&str>| {
        let mut attempt = attempt(line(hook, from_v4([192, 0, 2, 1]), protocol, 443, 1));
        if let Operation::Destination { names, .. } = &mut attempt.operation {
            names.extend(name.map(Arc::from));
        }
        attempt.to_string()
    };
    let named = Some("www.example.org");
    assert!(text(Hook::Connect4, 17, named).ends_with(mark));
    for (hook, protocol, name) in [
        (Hook::Connect4, 6, named),
        (Hook::Sendmsg4, 17, named),
        (Hook::Connect4, 17, None),
    ] {
        let text = text(hook, protocol, name);
        assert!(!text.contains(mark), "{text}");
    }
}

#[test]
fn the_line_of_an_address_that_is_over_says_since_when() {
    let mut over = attempt(loopback());
    over.expired = Some("2026-01-31T12:00:00.5Z".parse().unwrap());
    let begin = "denied tcp 127.0.0.1:22 (expired 2026-01-31T12:00:00Z) connect6 ";
    assert!(over.to_string().starts_with(begin), "{over}");
}

#[test]
fn an_attempt_that_self_would_allow_says_how() {
    let mut own = attempt(loopback());
    own.of_self = true;
    let text = own.to_string();
    let hint = " rule deny host (the listener was made in this fence: --allow tcp:self:22)";
    assert!(text.ends_with(hint), "{text}");
}

#[test]
fn a_refused_local_port_says_how_to_allow_it() {
    let text = |protocol, port| {
        let local = Ipv6Addr::LOCALHOST.octets();
        line(Hook::Bind6, local, protocol, port, verdict::LISTENER).to_string()
    };
    assert!(text(17, 53).ends_with(" rule deny-listener (--allow-listen udp:53)"));
    for (protocol, port) in [(6, 0), (136, 53)] {
        let text = text(protocol, port);
        assert!(text.ends_with(" rule deny-listener"), "{text}");
    }
}

#[test]
fn json_has_the_documented_fields_and_is_read_again() {
    let line = loopback();
    let json = line.to_json().unwrap();
    assert_eq!(
        json,
        r#"{"v":1,"time":"1970-01-01T00:00:01.5Z","fence":"vm1","workload":null,"seq":1,"kind":"attempt","verdict":"denied","layer":"call","hook":"connect6","protocol":"tcp","destination":"127.0.0.1","port":22,"names":[],"source":"10.0.0.7","source_port":40000,"interface":null,"source_mac":null,"expired":null,"dialled":null,"self":false,"rule":"deny host","comment":null,"pid":4242,"tid":4243,"uid":65534,"command":"qe\\x1bmu\\x0a","executable":null,"cgroup":77,"cgroup_path":null,"netns":null,"netns_cookie":5,"count":1,"total":1}"#
    );
    assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
}

#[test]
fn a_frame_has_its_device_and_no_process() {
    let of_guest = |protocol, port, address, rule| {
        let (mut key, mut origin) = seen(Hook::Frame, address, protocol, port, rule);
        (key.pid, origin.cgroup) = (7, 0x5254_0012_3456);
        (origin.comm, origin.tid, origin.uid) = (Comm::NONE, 0, qfence_common::NO_UID);
        let name = Names::of(&testing::policy(&[], false)).name(rule);
        let made = Attempt::new(&key, None, &origin, name, &Process::default()).unwrap();
        made.at(Some("t0".into()))
    };
    let tcp = of_guest(6, 22, from_v4([192, 0, 2, 1]), 1);
    assert_eq!(
        tcp.to_string(),
        "denied tcp 192.0.2.1:22 frame t0 from 52:54:00:12:34:56 10.0.0.7:40000 rule deny host"
    );
    assert_eq!((tcp.pid, tcp.uid, tcp.cgroup), (None, None, 0));
    assert_eq!(&*tcp.layer, "frame");
    let not_ip = qfence_common::frame::NOT_IP;
    let arp = of_guest(
        not_ip | 0x0806,
        0,
        from_v4([192, 0, 2, 9]),
        verdict::FRAME_KIND,
    );
    let text = arp.to_string();
    assert!(text.starts_with("denied arp 192.0.2.9 frame t0 "), "{text}");
    assert!(text.ends_with(" rule deny-frame"), "{text}");
    let lldp = of_guest(not_ip | 0x88cc, 0, [0; 16], verdict::FRAME_KIND);
    assert!(
        lldp.to_string()
            .starts_with("denied 0x88cc frame frame t0 ")
    );
    for attempt in [tcp, arp, lldp] {
        let mut line = loopback();
        line.body = Body::Attempt(attempt.into());
        let json = line.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line, "{json}");
    }
}

#[test]
fn sockets_devices_and_odd_packets_are_named() {
    let socket = line(Hook::SockCreate, [0; 16], 1, 3, verdict::SOCKET_KIND).to_string();
    assert!(socket.contains(" denied icmp raw socket sock_create pid "));
    assert!(socket.ends_with(" rule deny-raw"));
    let device = line(Hook::Device, [0; 16], 10, 200, verdict::DEVICE);
    assert!(
        device
            .to_string()
            .contains(" denied device /dev/net/tun device pid ")
    );
    let json = device.to_json().unwrap();
    assert!(json.contains(r#""layer":"device","hook":"device","device":"/dev/net/tun","#));
    let packet = line(Hook::Egress, [0; 16], 0, 0, verdict::UNPARSED);
    assert!(
        packet
            .to_string()
            .contains(" denied unknown packet egress ")
    );
    for line in [device, packet] {
        let json = line.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
    }
}

#[test]
fn names_of_unix_sockets_and_local_ports_are_on_record() {
    let (mut key, origin) = seen(Hook::ConnectUnix, [1; 16], 2, 11, verdict::MANAGER);
    let line_with = |key: &AttemptKey, bytes: Option<&[u8]>| {
        let mut name = [0; qfence_common::unix::WORDS];
        for (word, bytes) in name.iter_mut().zip(bytes.unwrap_or_default().chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        let rule = Names::of(&testing::policy(&[], false)).name(key.rule);
        let process = Process::default();
        let attempt = Attempt::new(key, bytes.map(|_| &name), &origin, rule, &process);
        Line {
            body: Body::Attempt(attempt.unwrap().into()),
            ..loopback()
        }
    };
    let named = line_with(&key, Some(b"\0/tmp/d\x1b\0x"));
    assert!(
        named.to_string().contains(" denied unix @/tmp/d\\x1b@x"),
        "{named}"
    );
    assert!(named.to_string().ends_with(" rule deny-manager"), "{named}");
    let json = named.to_json().unwrap();
    let wanted =
        r#""layer":"socket","hook":"connect_unix","unix":"@/tmp/d\\x1b@x@","manager":"systemd","#;
    assert!(json.contains(wanted), "{json}");
    // A name of the process's choice is one word: it cannot look like the fields after it.
    let blank = line_with(&key, Some(b"\0a pid 1 (x)")).to_string();
    assert!(
        blank.contains(r" denied unix @a\x20pid\x201\x20\x28x "),
        "{blank}"
    );
    (key.protocol, key.rule) = (0, verdict::UNIX);
    let nameless = line_with(&key, None);
    assert!(
        nameless
            .to_string()
            .contains(" denied unix unknown connect_unix pid ")
    );
    let bound = line(Hook::Bind4, from_v4([0; 4]), 17, 53, verdict::LISTENER);
    let text = " denied udp listener 0.0.0.0:53 bind4 pid ";
    assert!(bound.to_string().contains(text), "{bound}");
    for line in [named, nameless, bound] {
        let json = line.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line, "{json}");
    }
}

#[test]
fn what_has_no_line_of_its_own_is_counted_in_one() {
    let line = |body, count| Line {
        body,
        count,
        ..loopback()
    };
    let again = line(Body::Repeats(attempt(loopback())), 37);
    assert!(
        again
            .to_string()
            .ends_with(" rule deny host again 37 times")
    );
    for (body, text) in [
        (
            Body::Folded { lines: 3 },
            "vm1 folded 7 attempts: this line replaces 3 lines",
        ),
        (
            Body::Open {
                milliseconds: 1_050,
            },
            "vm1 open for at most 1.050 s: ",
        ),
        (Body::Lost, "vm1 lost 7 attempts: "),
        (
            Body::Dropped { lines: 3 },
            "vm1 dropped 3 lines with 7 attempts: ",
        ),
    ] {
        let line = line(body, 7);
        assert!(line.to_string().contains(text), "{line}");
        let json = line.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
    }
}
