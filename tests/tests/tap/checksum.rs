//! A guest that leaves a checksum to the host names two bytes of its frame, by the header of virtio. The host writes them after
//! the fence has judged the frame.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    shell::Shell,
    tap::{
        Header,
        Link::{self, Bridged, Routed},
        Tap,
        scene::{
            self, GATEWAY_MAC, GUEST_MAC, GUEST_V4, GUEST_V6, OTHER_V4, OTHER_V6, PORT, make_tap,
        },
        wire::{self, Mac},
    },
};

use super::{
    bed::{Bed, fence},
    matrix::kind,
};

/// The device to a router outside. Frames that leave by it are finished by the host, because nobody has it accept offloads.
const UPLINK: &str = "tap9";
const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 0x0a];

/// The lengths of headers.
const ETHERNET: usize = 14;
const V4: usize = ETHERNET + 20;
const V6: usize = ETHERNET + 40;

/// How long what the router must not get is waited for: the host sends a frame on within the call that brings it.
const SHORT: Duration = Duration::from_millis(100);

/// A frame that is another one after the host has written a checksum into it.
struct Forged {
    frame: Vec<u8>,
    start: usize,
    offset: usize,
    /// Its packet, finished.
    packet: Vec<u8>,
}

struct Outside {
    bed: Bed,
    router: Tap,
}

impl Outside {
    /// A host with a router in the guest's bridge, or in a network of its own to which it forwards.
    fn new(link: Link) -> Result<Self> {
        let bed = scene::bed(kind(link, Header::Virtio, false))?;
        let host = &bed.scene.host;
        make_tap(host, UPLINK, Header::None)?;
        match link {
            Bridged => host.ip_batch(&format!("link set {UPLINK} master br0\n"))?,
            Routed => host.ip_batch(&format!(
                "link set {UPLINK} address 02:00:00:00:01:0a\n\
                 address add 10.60.0.1/24 dev {UPLINK}\n\
                 address add fd60::1/64 dev {UPLINK} nodad\n\
                 neighbour replace 10.60.0.2 lladdr 02:00:00:00:00:0a dev {UPLINK} nud permanent\n\
                 neighbour replace fd60::2 lladdr 02:00:00:00:00:0a dev {UPLINK} nud permanent\n\
                 route add 10.61.0.0/16 via 10.60.0.2\n\
                 route add ee00::/8 via fd60::2\n"
            ))?,
        }
        let router = scene::open_tap(host, UPLINK, Header::None)?;
        // The port of the bridge forwards a moment after it has a carrier.
        thread::sleep(Duration::from_secs(1));
        Ok(Self { bed, router })
    }

    /// Where the guest sends frames for the router.
    fn next_hop(&self) -> Mac {
        match self.bed.scene.kind.link {
            Bridged => ROUTER_MAC,
            Routed => GATEWAY_MAC,
        }
    }

    /// The packet of a frame, as it is when it leaves.
    fn finished(&self, frame: &[u8], start: usize, offset: usize) -> Vec<u8> {
        let mut packet = frame.to_vec();
        if self.bed.scene.kind.link == Routed {
            forward(&mut packet[ETHERNET..]);
        }
        let sum = wire::checksum(&[&packet[start..]]);
        packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        packet.split_off(ETHERNET)
    }

    /// A datagram for the service of the host from this port, once it is finished. Before, its destination is another
    /// address.
    fn to_host(&self, host: IpAddr, port: u16) -> Forged {
        let guest = if host.is_ipv4() { GUEST_V4 } else { GUEST_V6 };
        let datagram = wire::udp((guest, port), (host, PORT), b"a forged datagram.");
        let mut frame = wire::packet(GUEST_MAC, self.next_hop(), &datagram);
        let (start, place) = if host.is_ipv4() {
            // No checksum of UDP, so that the payload is free.
            frame[V4 + 6..V4 + 8].fill(0);
            frame[ETHERNET + 16..ETHERNET + 18].copy_from_slice(&[10, 61]);
            (ETHERNET + 16, ETHERNET + 16)
        } else {
            frame[ETHERNET + 24..ETHERNET + 26].fill(0);
            (ETHERNET + 6, ETHERNET + 24)
        };
        let wanted = if host.is_ipv4() {
            [10, 50]
        } else {
            [0xfd, 0x50]
        };
        // The word that makes the sum right: in IPv4 of the payload, in IPv6 the one that is changed itself.
        let free = if host.is_ipv4() { V4 + 8 } else { place };
        self.solve(frame, start, place, free, wanted)
    }

    /// A datagram to port 8080 of a server, once it is finished. Before, its port is 8081.
    fn to_port(&self, server: IpAddr, port: u16) -> Forged {
        let datagram = wire::udp((GUEST_V4, port), (server, 8081), b"a forged datagram.");
        let mut frame = wire::packet(GUEST_MAC, self.next_hop(), &datagram);
        frame[V4 + 6..V4 + 8].fill(0);
        self.solve(frame, V4, V4 + 2, V4 + 8, PORT.to_be_bytes())
    }

    /// Sets the word at `free` so that the checksum of what is behind `start` is the wanted word at `place`.
    fn solve(
        &self,
        mut frame: Vec<u8>,
        start: usize,
        place: usize,
        free: usize,
        wanted: [u8; 2],
    ) -> Forged {
        let offset = place - start;
        frame[free..free + 2].fill(0);
        let mut left = frame.clone();
        if self.bed.scene.kind.link == Routed {
            forward(&mut left[ETHERNET..]);
        }
        // The sum of the rest and of the free word is to be the complement of the wanted one.
        let rest = !wire::checksum(&[&left[start..]]);
        let word = wire::checksum(&[&rest.to_be_bytes(), &wanted]);
        frame[free..free + 2].copy_from_slice(&word.to_be_bytes());
        let packet = self.finished(&frame, start, offset);
        assert_eq!(packet[place - ETHERNET..place - ETHERNET + 2], wanted);
        Forged {
            frame,
            start,
            offset,
            packet,
        }
    }

    /// Sends an unfinished frame of the guest. Returns whether the router gets it, as this packet.
    fn sends(&self, frame: &[u8], start: usize, offset: usize, packet: &[u8]) -> Result<bool> {
        self.router.drain()?;
        self.bed.tap.send_unfinished(frame, start, offset)?;
        thread::sleep(SHORT);
        let got = self.router.drain()?;
        Ok(got
            .iter()
            .any(|frame| frame.bytes.get(ETHERNET..) == Some(packet)))
    }

    /// Whether a forged frame reaches the router, which sends it on.
    fn forges(&self, forged: &Forged) -> Result<bool> {
        let Forged {
            frame,
            start,
            offset,
            packet,
        } = forged;
        let has = self.sends(frame, *start, *offset, packet)?;
        if has {
            let back = match self.bed.scene.kind.link {
                Bridged => GATEWAY_MAC,
                Routed => [2, 0, 0, 0, 1, 0x0a],
            };
            self.router.send(&wire::packet(ROUTER_MAC, back, packet))?;
        }
        Ok(has)
    }

    fn arrived(&self, port: u16) -> bool {
        let mut arrivals = self.bed.scene.arrivals().into_iter();
        arrivals.any(|arrival| arrival.peer.port() == port)
    }

    /// Without a fence, what the router sends back comes to the host's service. In a fence it does not get to the router.
    fn prove_for_host(&self, hosts: &[IpAddr]) -> Result<()> {
        for (host, port) in hosts.iter().zip(5000..) {
            ensure!(self.forges(&self.to_host(*host, port))?, "control: {host}");
            ensure!(
                self.arrived(port),
                "control: {host} does not get what the router sends back"
            );
        }
        let (fence, _shell) = fence(&self.bed.scene, "checksum", &[])?;
        for (host, port) in hosts.iter().zip(6000..) {
            let forged = self.to_host(*host, port);
            ensure!(!self.forges(&forged)?, "{host}: the router gets it");
            fence
                .await_refusal(|refusal| refusal.rule == "deny-checksum" && refusal.port == PORT)?;
            ensure!(!self.arrived(port), "{host} gets it");
        }
        self.prove_rest(hosts)
    }

    /// What guests really leave to devices is finished, in a fence too.
    fn prove_rest(&self, hosts: &[IpAddr]) -> Result<()> {
        for host in hosts {
            let (guest, other, header): (_, IpAddr, _) = if host.is_ipv4() {
                (GUEST_V4, "10.61.0.7".parse()?, V4)
            } else {
                (GUEST_V6, "ee07::7".parse()?, V6)
            };
            let ends = ((guest, 4000), (other, 5000));
            // In a tunnel of the guest, the checksum of a packet within.
            let within = wire::tcp((GUEST_V4, 1), (OTHER_V4, 2), wire::SYN);
            for (packet, start, offset) in [
                (wire::udp(ends.0, ends.1, b"unfinished"), header, 6),
                (wire::tcp(ends.0, ends.1, wire::SYN), header, 16),
                (wire::ip(guest, other, 4, &within), header + 20, 16),
                (wire::udp(ends.0, ends.1, &within), header + 8 + 20, 16),
            ] {
                let frame = wire::packet(GUEST_MAC, self.next_hop(), &packet);
                let finished = self.finished(&frame, start, offset);
                ensure!(
                    self.sends(&frame, start, offset, &finished)?,
                    "{other}: start {start}, offset {offset}"
                );
            }
        }
        Ok(())
    }
}

/// What a router does to a packet.
fn forward(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        packet[10..12].fill(0);
        let sum = wire::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The bridge looks at no checksum, so the guest also changes the address of an IPv4 packet.
#[test]
fn a_guest_cannot_change_the_destination_of_a_bridged_frame() -> Result<()> {
    Outside::new(Bridged)?.prove_for_host(&[OTHER_V4, OTHER_V6])
}

#[test]
fn a_guest_cannot_change_the_destination_of_a_forwarded_packet() -> Result<()> {
    Outside::new(Routed)?.prove_for_host(&[OTHER_V6])
}

#[test]
fn a_guest_cannot_change_the_port_of_a_forwarded_packet() -> Result<()> {
    let outside = Outside::new(Routed)?;
    let server: IpAddr = "10.61.0.1".parse()?;
    ensure!(outside.forges(&outside.to_port(server, 5000))?, "control");
    let options = ["--deny", "udp:10.61.0.1:8080"];
    let (fence, _shell): (Fence, Shell) = fence(&outside.bed.scene, "port", &options)?;
    ensure!(
        !outside.forges(&outside.to_port(server, 6000))?,
        "it passes"
    );
    fence.await_refusal(|refusal| refusal.rule == "deny-checksum" && refusal.port == 8081)?;
    outside.prove_rest(&[OTHER_V4])
}

/// ARP, ICMP and fragments have no checksum that a guest leaves to a device.
#[test]
fn a_guest_leaves_no_other_checksums() -> Result<()> {
    let outside = Outside::new(Bridged)?;
    let other: IpAddr = "10.61.0.7".parse()?;
    let whole = wire::udp((GUEST_V4, 4000), (other, 5000), &[7; 100]);
    let later = wire::fragments(&whole, 48).remove(1);
    let frames = |outside: &Outside| {
        let (IpAddr::V4(guest), IpAddr::V4(other)) = (GUEST_V4, other) else {
            unreachable!("addresses of IPv4");
        };
        let arp = wire::arp(1, (GUEST_MAC, guest), ([0; 6], other));
        let mac = outside.next_hop();
        [
            wire::ethernet(GUEST_MAC, mac, 0x0806, &arp),
            wire::packet(GUEST_MAC, mac, &wire::ping(GUEST_V4, other.into(), 7)),
            wire::packet(GUEST_MAC, mac, &later),
        ]
    };
    let arrives = |frame: &[u8]| {
        let (start, offset) = (ETHERNET + 8, 16);
        let finished = outside.finished(frame, start, offset);
        outside.sends(frame, start, offset, &finished)
    };
    for (at, frame) in frames(&outside).iter().enumerate() {
        ensure!(arrives(frame)?, "control: {at}");
    }
    let (fence, _shell) = fence(&outside.bed.scene, "others", &[])?;
    for (at, frame) in frames(&outside).iter().enumerate() {
        ensure!(!arrives(frame)?, "{at} arrives");
    }
    fence.await_refusal(|refusal| refusal.rule == "deny-checksum")?;
    Ok(())
}
