//! The loads that are measured, all from a guest to the internet.

use std::{net::IpAddr, time::Instant};

use anyhow::Result;
use tests::{
    bench::Options,
    tap::{
        scene::{GATEWAY_MAC, GUEST_MAC, GUEST_V4, GUEST_V6, SERVER_V4, SERVER_V6},
        wire,
    },
};

use crate::scene::{DISCARD, SINK, SOURCE, Setup};

/// The payload of a small datagram, in bytes: with its headers over IPv4 the packet has 64.
const SMALL: [u8; 36] = [7; 36];

/// How long TCP is measured at a time, in milliseconds.
const TRANSFER_MS: u32 = 50;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    SmallV4,
    SmallV6,
    Upload,
    Download,
}

/// What was carried.
pub(crate) struct Carried {
    /// Frames, or MB.
    pub(crate) amount: f64,
    /// The throughput, in the unit of the load.
    pub(crate) a_second: f64,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [Self::SmallV4, Self::SmallV6, Self::Upload, Self::Download];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SmallV4 => "small datagrams through a tap, IPv4",
            Self::SmallV6 => "small datagrams through a tap, IPv6",
            Self::Upload => "bulk TCP through a tap, sent by the guest",
            Self::Download => "bulk TCP through a tap, received by the guest",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::SmallV4 | Self::SmallV6 => "1000/s",
            Self::Upload | Self::Download => "MB/s",
        }
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Upload | Self::Download)
    }

    /// The unit of the processor time.
    pub(crate) fn unit_of_time(self) -> &'static str {
        match self {
            Self::SmallV4 | Self::SmallV6 => "us each",
            Self::Upload | Self::Download => "us/MB",
        }
    }

    /// How many rounds are measured. The throughput of TCP depends on how the kernel's scheduler distributes the guest, the
    /// relay and the server, and changes for seconds at a time. So its rounds are short and many.
    pub(crate) fn rounds(self, options: &Options) -> usize {
        match self {
            Self::SmallV4 | Self::SmallV6 => options.either(4, 32),
            Self::Upload | Self::Download => options.either(10, 200),
        }
    }

    /// Carries the load through a setup.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nothing counts to 2^53 in a round"
    )]
    pub(crate) fn sample(self, setup: &mut Setup, quick: bool) -> Result<Carried> {
        let frames = if quick { 1000 } else { 4000 };
        match self {
            Self::SmallV4 => small(setup, (GUEST_V4, SERVER_V4), frames),
            Self::SmallV6 => small(setup, (GUEST_V6, SERVER_V6), frames),
            Self::Upload | Self::Download => {
                let load = match self {
                    Self::Upload => format!("upload/{SERVER_V4}/{SINK}"),
                    _ => format!("download/{SERVER_V4}/{SOURCE}"),
                };
                let done = setup.transfer(&load, TRANSFER_MS)?;
                let amount = done.count as f64 / 1e6;
                Ok(Carried {
                    amount,
                    a_second: amount / done.ms * 1000.0,
                })
            }
        }
    }
}

/// Writes datagrams into the device. The host forwards each within the call that writes it.
fn small(setup: &Setup, (from, to): (IpAddr, IpAddr), frames: u32) -> Result<Carried> {
    let packet = wire::udp((from, 4000), (to, DISCARD), &SMALL);
    let frame = wire::packet(GUEST_MAC, GATEWAY_MAC, &packet);
    let begun = Instant::now();
    for _ in 0..frames {
        setup.tap().send_anything(&frame)?;
    }
    let amount = f64::from(frames);
    Ok(Carried {
        amount,
        a_second: amount / begun.elapsed().as_secs_f64() / 1000.0,
    })
}
