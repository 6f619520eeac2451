//! The kinds of traffic that a guest makes.

use anyhow::{Result, ensure};
use tests::{guest::linux::Guest, world::SERVER_V4};

use crate::server;

/// How long a sample takes. Short ones, so that what else the machine does falls on both guests alike.
const SAMPLE_MS: u64 = 100;

/// One kind of traffic, over IPv4 and slirp, to a server on the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Bytes to the server.
    Upload,
    /// Bytes from the server.
    Download,
    /// Connections, one after the other.
    Open,
    /// Messages there and back, one after the other.
    RoundTrip,
}

impl Traffic {
    pub(crate) const ALL: [Self; 4] = [Self::Upload, Self::Download, Self::Open, Self::RoundTrip];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upload => "guest's TCP through slirp, sent",
            Self::Download => "guest's TCP through slirp, received",
            Self::Open => "guest's connections through slirp",
            Self::RoundTrip => "guest's round trip through slirp",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Upload | Self::Download => "MB/s",
            Self::Open => "/s",
            Self::RoundTrip => "µs",
        }
    }

    /// Whether it is throughput that is measured.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Upload | Self::Download)
    }

    /// Has a guest make such traffic for a while.
    pub(crate) fn sample(self, guest: &mut Guest) -> Result<f64> {
        let (kind, port) = match self {
            Self::Upload => ("upload", server::SINK),
            Self::Download => ("download", server::SOURCE),
            Self::Open => ("open", server::GREETING),
            Self::RoundTrip => ("round-trip", server::ECHO),
        };
        let load = guest.load(SAMPLE_MS, &format!("{kind}/{SERVER_V4}/{port}"))?;
        ensure!(load.count > 0, "nothing came of {load:?}");
        Ok(match self {
            Self::Upload | Self::Download => load.a_second() / 1e6,
            Self::Open => load.a_second(),
            Self::RoundTrip => 1e6 / load.a_second(),
        })
    }
}
