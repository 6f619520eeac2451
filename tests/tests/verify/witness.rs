//! The witness of `verify` counts the packets of one probe, and not those of earlier ones.

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::Command,
};

use anyhow::Result;
use qfence_user::verify::{netns::Netns, witness::Witness};

/// A port without a service.
const NOWHERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9);

#[test]
fn a_late_packet_of_an_earlier_probe_does_not_count() -> Result<()> {
    let host = Netns::new()?;
    host.run(|| {
        // By this thread, which is in the namespace.
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?;
        assert!(up.success());
        let witness = Witness::new()?;
        let earlier = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        earlier.send_to(b"one", NOWHERE)?;
        assert!(witness.count()? > 0);
        earlier.send_to(b"late", NOWHERE)?;
        assert_eq!(witness.count()?, 0);
        let next = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        earlier.send_to(b"late", NOWHERE)?;
        next.send_to(b"one", NOWHERE)?;
        // The kernel shows a packet when it leaves and when it arrives, which a busy machine can delay.
        assert!((1..=2).contains(&witness.count()?));
        next.send_to(b"seen before the next probe", NOWHERE)?;
        witness.forget()?;
        assert_eq!(witness.count()?, 0);
        Ok(())
    })
}
