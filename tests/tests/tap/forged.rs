//! What a guest may answer is what the host has sent by itself: nobody else makes a note of that.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use tests::tap::{
    Header,
    Link::Bridged,
    scene::{
        self, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, NEIGHBOUR_MAC,
        PORT, make_tap, open_tap,
    },
    wire,
};

use super::{
    bed::{Bed, fence},
    matrix::kind,
};

/// A second guest in the bridge, which is not fenced.
const ACCOMPLICE: &str = "tap9";

/// An accomplice in the bridge sends a datagram in the name of the host, from the port of one of its services.
#[test]
fn a_datagram_of_another_guest_in_the_name_of_the_host_opens_nothing() -> Result<()> {
    let bed = scene::bed(kind(Bridged, Header::None, false))?;
    make_tap(&bed.scene.host, ACCOMPLICE, Header::None)?;
    bed.scene
        .host
        .ip(&format!("link set {ACCOMPLICE} master br0"))?;
    let accomplice = open_tap(&bed.scene.host, ACCOMPLICE, Header::None)?;
    // The port of the bridge forwards a moment after it has a carrier.
    thread::sleep(Duration::from_secs(1));
    let asks = |bed: &Bed, guest: IpAddr, host: IpAddr, port: u16| {
        let datagram = wire::udp((guest, port), (host, PORT), b"forged");
        bed.tap
            .send(&wire::packet(GUEST_MAC, GATEWAY_MAC, &datagram))
    };
    let arrived = |bed: &Bed, port: u16| {
        let mut arrivals = bed.scene.arrivals().into_iter();
        arrivals.any(|arrival| arrival.peer.port() == port)
    };
    for (at, (guest, host)) in [(GUEST_V4, GATEWAY_V4), (GUEST_V6, GATEWAY_V6)]
        .into_iter()
        .enumerate()
    {
        let port = 5000 + u16::try_from(at)?;
        asks(&bed, guest, host, port)?;
        ensure!(arrived(&bed, port), "unfenced, {host} is not reached");
    }
    let (fence, _shell) = fence(&bed.scene, "forged", &[])?;
    for (at, (guest, host)) in [(GUEST_V4, GATEWAY_V4), (GUEST_V6, GATEWAY_V6)]
        .into_iter()
        .enumerate()
    {
        let port = 6000 + u16::try_from(at)?;
        bed.tap.drain()?;
        let forged = wire::udp((host, PORT), (guest, port), b"to be answered");
        accomplice.send(&wire::packet(NEIGHBOUR_MAC, GUEST_MAC, &forged))?;
        thread::sleep(Duration::from_millis(100));
        let got = bed.tap.drain()?;
        let is_forged = |bytes: &[u8]| bytes.ends_with(b"to be answered");
        ensure!(
            got.iter().any(|frame| is_forged(&frame.bytes)),
            "the forged datagram did not come to the guest"
        );
        asks(&bed, guest, host, port)?;
        fence.await_refusal(|refusal| refusal.port == PORT && refusal.rule == "deny host")?;
        ensure!(!arrived(&bed, port), "{host} was reached");
    }
    Ok(())
}
