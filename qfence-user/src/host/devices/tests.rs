use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;

use super::*;

fn link(index: u32, name: &str, more: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.extend(more);
    link
}

fn tun(kind: u8) -> LinkAttribute {
    let data = [(1, vec![1, 0, 0, 0]), (TUN_TYPE, vec![kind])];
    let data = data.map(|(kind, value)| InfoTun::Other(DefaultNla::new(kind, value)));
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Tun),
        LinkInfo::Data(InfoData::Tun(data.into())),
    ])
}

fn kind(kind: InfoKind) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
}

fn address(index: u32, attributes: Vec<AddressAttribute>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.attributes = attributes;
    message
}

#[test]
fn the_kind_of_a_device_is_known() {
    let mut devices = Devices::default();
    let mut loopback = link(1, "lo", Vec::new());
    loopback.header.flags = LinkFlags::Loopback;
    devices.add(&loopback);
    for (index, name, more) in [
        (2, "eth0", Vec::new()),
        (3, "t0", vec![tun(TAP)]),
        (4, "tun0", vec![tun(1)]),
        (5, "mvt", vec![kind(InfoKind::MacVtap)]),
        (6, "v0", vec![kind(InfoKind::Veth)]),
        (7, "br0", vec![kind(InfoKind::Bridge)]),
        (8, "vx", vec![kind(InfoKind::Vxlan)]),
    ] {
        devices.add(&link(index, name, more));
    }
    for (name, expected) in [
        ("lo", Kind::Loopback),
        ("eth0", Kind::Card),
        ("t0", Kind::Tap),
        ("tun0", Kind::Tun),
        ("mvt", Kind::Macvtap),
        ("v0", Kind::Veth),
        ("br0", Kind::Bridge),
        ("vx", Kind::Other("vxlan".into())),
    ] {
        assert_eq!(devices.named(name).unwrap().kind, expected, "{name}");
    }
    assert_eq!(devices.named("t1"), None);
}

#[test]
fn gateways_are_the_addresses_of_the_device_and_of_its_bridge() {
    let mut devices = Devices::default();
    devices.add(&link(2, "br0", vec![kind(InfoKind::Bridge)]));
    let in_bridge = vec![tun(TAP), LinkAttribute::Controller(2)];
    devices.add(&link(3, "t0", in_bridge));
    devices.add(&link(4, "t1", vec![tun(TAP), LinkAttribute::Controller(0)]));
    let v4 = |text: &str| text.parse::<IpAddr>().unwrap();
    let plain = AddressAttribute::Address;
    devices.add_address(&address(2, vec![plain(v4("192.0.2.1"))]));
    devices.add_address(&address(2, vec![plain(v4("fe80::1"))]));
    // The local address counts, not the peer's.
    let local = AddressAttribute::Local(v4("192.0.2.9"));
    devices.add_address(&address(3, vec![plain(v4("192.0.2.10")), local]));
    devices.add_address(&address(4, vec![plain(v4("198.51.100.1"))]));
    let gateways = |name| devices.gateways(devices.named(name).unwrap());
    let expected = ["192.0.2.1", "192.0.2.9", "fe80::1"].map(v4);
    assert_eq!(gateways("t0"), BTreeSet::from(expected));
    assert_eq!(gateways("t1"), BTreeSet::from([v4("198.51.100.1")]));
}

#[tokio::test]
async fn the_devices_of_this_host_are_read() {
    let devices = Devices::read().await.unwrap();
    let loopback = devices.named("lo").unwrap();
    assert_eq!((loopback.index, &loopback.kind), (1, &Kind::Loopback));
    assert_eq!(devices.with_index(1), Some(loopback));
}
