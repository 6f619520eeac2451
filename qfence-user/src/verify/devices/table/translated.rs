//! What the host's own rules turn into something for the host, after the device.

use anyhow::Result;

use super::{
    super::row::{
        Fenced::{Refused, Through},
        Layer, Open, Row,
        Said::{Nothing, Prohibited},
        address, row, to, to_host,
    },
    other::tunnelled,
};
use crate::{
    probe::frame::wire,
    verify::{
        devices::{
            scene::{
                GATEWAY_MAC, GATEWAY_V4, GUEST_V4, Kind, Link, NEIGHBOUR_MAC, PORT, Scene,
                TRANSPARENT,
            },
            tools::{ip, ip6},
        },
        netns::Netns,
    },
};

/// The MAC address that the bridge takes for its own.
const ROUTED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

/// The rules of the host. All come after the device's programs.
const RULES: &str = "
table ip tricks {
  chain early {
    type filter hook prerouting priority -150;
    ip daddr 203.0.113.54 udp dport 8080 meta mark set 1 tproxy to :8099
    ip daddr 203.0.113.56 meta mark set 7
    ip daddr 203.0.113.58 meta mark set 0 meta priority set 1:7
    ip daddr 203.0.113.61 meta mark set 7
  }
  chain nat {
    type nat hook prerouting priority -100;
    ip daddr { 203.0.113.50, 203.0.113.56, 203.0.113.58, 203.0.113.60, 203.0.113.61 } dnat to 192.168.122.1
    ip daddr 203.0.113.51 dnat to 10.50.0.1
    ip daddr 203.0.113.52 dnat to 127.0.0.1
    ip daddr 203.0.113.53 udp dport 80 redirect to :8080
    ip daddr 203.0.113.53 tcp dport 80 redirect to :8080
    ip daddr 203.0.113.59 udp dport 4789 dnat to 192.168.122.1
  }
}
table ip6 tricks {
  chain nat {
    type nat hook prerouting priority -100;
    ip6 daddr 2001:db8:5::50 dnat to fd00:122::1
    ip6 daddr 2001:db8:5::51 dnat to fd50::1
    ip6 daddr 2001:db8:5::53 udp dport 80 redirect to :8080
  }
}
table bridge tricks {
  chain early {
    type filter hook prerouting priority -300;
    ether daddr 02:00:00:00:00:66 ether daddr set 02:00:00:00:01:01 meta pkttype set host
    ip daddr { 203.0.113.60, 203.0.113.61 } ether saddr set 02:00:00:00:00:33
  }
}
";

/// Gives the host its rules. UDP is 17 there: without the file /etc/protocols, `ip` does not know its name.
pub(in super::super) fn prepare<N: AsRef<Netns>>(scene: &Scene<N>) -> Result<()> {
    scene.nft(RULES)?;
    let (host, device) = (scene.host.as_ref(), scene.device());
    ip(
        host,
        &format!(
            "rule add pref 90 fwmark 1 lookup 100\nroute add local default dev lo table 100\n\
             rule add pref 91 iif {device} to 203.0.113.55 lookup 101\n\
             route add local 203.0.113.55 dev lo table 101\n\
             rule add pref 92 ipproto 17 dport 4000 lookup 102\n\
             route add local 203.0.113.57 dev lo table 102\n\
             route add local 2001:db8:5::57 dev lo table 102\n"
        ),
    )?;
    ip6(host, "rule add pref 92 ipproto 17 dport 4000 lookup 102\n")
}

pub(super) fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, destination) in [
        ("to the host's address there", "203.0.113.50"),
        ("to another address", "203.0.113.51"),
        ("to the host's address there, by IPv6", "2001:db8:5::50"),
        ("to another address, by IPv6", "2001:db8:5::51"),
        (
            "to the host's address there, with another mark",
            "203.0.113.56",
        ),
        (
            "to the host's address there, without a mark",
            "203.0.113.58",
        ),
    ] {
        let destination = address(destination);
        rows.push(row(
            format!("udp that is translated {name}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| to_host(&by.udp(destination, PORT)),
        ));
        rows.push(row(
            format!("tcp that is translated {name}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| to_host(&by.syn(destination, PORT)),
        ));
    }
    rows.push(
        row(
            "udp that is translated to loopback",
            Open::Delivered,
            Refused(Nothing),
            |by| to_host(&by.udp(address("203.0.113.52"), PORT)),
        )
        .with("ipv4/conf/all/route_localnet", "1", "0"),
    );
    for destination in ["203.0.113.53", "2001:db8:5::53"] {
        let destination = address(destination);
        rows.push(row(
            format!("udp to {destination} that is redirected"),
            Open::Delivered,
            Refused(Nothing),
            move |by| to_host(&by.udp(destination, 80)),
        ));
    }
    rows.push(row(
        "tcp that is redirected",
        Open::Delivered,
        Refused(Nothing),
        |by| to_host(&by.syn(address("203.0.113.53"), 80)),
    ));
    rows.push(row(
        "udp that a transparent proxy takes",
        Open::Delivered,
        Refused(Nothing),
        |by| to_host(&by.udp(address("203.0.113.54"), PORT)),
    ));
    rows.push(row(
        "udp that is routed to the host by its device",
        Open::Delivered,
        Refused(Nothing),
        |by| to_host(&by.udp(address("203.0.113.55"), TRANSPARENT)),
    ));
    for destination in ["203.0.113.57", "2001:db8:5::57"] {
        let destination = address(destination);
        rows.push(row(
            format!("udp to {destination} that is routed to the host by its port"),
            Open::Delivered,
            Refused(Nothing),
            move |by| to_host(&by.udp(destination, 4000)),
        ));
    }
    rows.push(row(
        "a tunnel that is translated to the host's",
        Open::Delivered,
        Refused(Nothing),
        |by| to_host(&tunnelled(by.port, "203.0.113.59")),
    ));
    rows.push(row(
        "fragments that are translated to the host's address",
        Open::Delivered,
        Refused(Nothing),
        |by| {
            let to = (address("203.0.113.50"), PORT);
            let whole = wire::udp((GUEST_V4, by.port), to, &[7; 120]);
            let pieces = wire::fragments(&whole, 64);
            pieces.iter().flat_map(|piece| to_host(piece)).collect()
        },
    ));
    for row in &mut rows {
        row.layer = Layer::Second;
    }
    if kind.link == Link::Bridged {
        rows.extend(in_the_bridge(kind));
    }
    rows
}

fn in_the_bridge(kind: Kind) -> Vec<Row> {
    let name = "udp that is translated, in a frame to the neighbour";
    let frames = |by: &super::super::row::Sender| {
        vec![to(NEIGHBOUR_MAC, &by.udp(address("203.0.113.50"), PORT))]
    };
    let translated = if kind.filters_bridge {
        row(name, Open::Delivered, Refused(Nothing), frames).held_by(Layer::Second)
    } else {
        row(name, Open::Neighbour, Through, frames)
    };
    // Neither the device nor the sender is seen any more: the tag is.
    let hidden = [
        ("another sender", "203.0.113.60", false),
        ("another sender and mark", "203.0.113.61", true),
    ];
    let hidden = hidden.map(|(name, destination, has_mark)| {
        let destination = address(destination);
        let row = row(
            format!("udp that is translated, and that the bridge gives {name}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| to_host(&by.udp(destination, PORT)),
        )
        .held_by(Layer::Together);
        if has_mark { row.by_tag_alone() } else { row }
    });
    let mut rows = Vec::from(hidden);
    rows.extend([
        translated,
        row(
            "udp in a frame that the bridge takes for its own",
            Open::Delivered,
            Refused(Prohibited),
            |by| vec![to(ROUTED_MAC, &by.udp(GATEWAY_V4, PORT))],
        ),
        row(
            "udp that is translated, in a frame that the bridge takes for its own",
            Open::Delivered,
            Refused(Nothing),
            |by| vec![to(ROUTED_MAC, &by.udp(address("203.0.113.50"), PORT))],
        )
        .held_by(Layer::Second),
        row(
            "udp that is translated, in a frame with two tags",
            Open::Delivered,
            Refused(Nothing),
            |by| {
                let frame = to(GATEWAY_MAC, &by.udp(address("203.0.113.50"), PORT));
                vec![wire::tagged(&frame, &[(0x8100, 0), (0x8100, 0)])]
            },
        ),
    ]);
    rows
}
