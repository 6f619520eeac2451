//! The traffic that is measured.

use std::net::IpAddr;

use tests::world::{HOST_V4, HOST_V6, SERVER_V4, SERVER_V6};

use crate::rival::Rival;

/// Services: on the internet, and one on the host.
pub(crate) const ACCEPT: u16 = 7000;
pub(crate) const SINK: u16 = 7001;
pub(crate) const SOURCE: u16 = 7002;
/// What is sent there is dropped without a word.
pub(crate) const DISCARD: u16 = 7003;
/// A listener of the measured process's own, on the host.
pub(crate) const OWN: u16 = 7004;

/// A kind of traffic; all to the internet, but what is refused, and connections to a listener of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ConnectUdp,
    SendUdp,
    ConnectTcp,
    ConnectTcpAlone,
    ConnectOwn,
    RefusedConnectUdp,
    RefusedSendUdp,
    RefusedTcp,
    Upload,
    Download,
    UploadUdp,
    DownloadUdp,
}

/// A kind of traffic by one family.
pub(crate) struct Traffic {
    pub(crate) kind: Kind,
    is_v4: bool,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::ConnectUdp,
        Self::SendUdp,
        Self::ConnectTcp,
        Self::ConnectTcpAlone,
        Self::ConnectOwn,
        Self::RefusedConnectUdp,
        Self::RefusedSendUdp,
        Self::RefusedTcp,
        Self::Upload,
        Self::Download,
        Self::UploadUdp,
        Self::DownloadUdp,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ConnectUdp => "connect(), UDP",
            Self::SendUdp => "sendto(), UDP",
            Self::ConnectTcp => "socket(), connect(), close(), TCP",
            Self::ConnectTcpAlone => "connect() alone, TCP",
            Self::ConnectOwn => "socket(), connect(), close(), TCP, own listener",
            Self::RefusedConnectUdp => "refused connect(), UDP",
            Self::RefusedSendUdp => "refused sendto(), UDP",
            Self::RefusedTcp => "socket(), refused connect(), close(), TCP",
            Self::Upload => "bulk TCP, sent",
            Self::Download => "bulk TCP, received",
            Self::UploadUdp => "datagrams of 1,200 bytes, sent",
            Self::DownloadUdp => "datagrams of 1,200 bytes, to a fence",
        }
    }

    /// Whether it is counted by what there is in a second, not by what each takes.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(
            self,
            Self::Upload | Self::Download | Self::UploadUdp | Self::DownloadUdp
        )
    }

    fn is_refused(self) -> bool {
        matches!(
            self,
            Self::RefusedConnectUdp | Self::RefusedSendUdp | Self::RefusedTcp
        )
    }

    /// Whether a fence is to be at least as fast as what does the same otherwise.
    pub(crate) fn is_against_rivals(self) -> bool {
        self == Self::SendUdp || self.is_bulk()
    }

    /// Whether it is measured in that scene. A firewall sees no connect(), and only a rule for `self` lets a
    /// connection to an own listener through.
    pub(crate) fn is_for(self, rival: Rival) -> bool {
        match (self, rival) {
            (
                Self::ConnectUdp | Self::ConnectTcp | Self::ConnectTcpAlone | Self::ConnectOwn,
                Rival::OfSelf,
            ) => true,
            (_, Rival::OfSelf) => false,
            (Self::ConnectUdp | Self::SendUdp | Self::ConnectTcp, Rival::Names) => true,
            (_, Rival::Names) => false,
            (Self::ConnectOwn, _) => rival == Rival::Unfenced,
            (Self::RefusedConnectUdp | Self::ConnectTcpAlone, _) => {
                rival == Rival::Unfenced || rival.is_fence()
            }
            _ => true,
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Upload | Self::Download => "MB/s",
            Self::UploadUdp | Self::DownloadUdp => "1000/s",
            _ => "ns",
        }
    }

    /// A figure in that unit, of a number in some milliseconds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nothing counts to 2^53 in a round"
    )]
    pub(crate) fn figure(self, count: u64, ms: f64) -> f64 {
        match self {
            Self::Upload | Self::Download => count as f64 / ms / 1000.0,
            Self::UploadUdp | Self::DownloadUdp => count as f64 / ms,
            _ => ms * 1e6 / count as f64,
        }
    }
}

impl Traffic {
    /// All there is, by both families.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let both = |kind| [true, false].map(|is_v4| Self { kind, is_v4 });
        Kind::ALL.into_iter().flat_map(both)
    }

    pub(crate) fn group(&self) -> String {
        let family = if self.is_v4 { "IPv4" } else { "IPv6" };
        format!("{}, {family}", self.kind.name())
    }

    /// As the probe takes it. What is refused in the others is let in the one without a fence: the same call,
    /// with success.
    pub(crate) fn load(&self, rival: Rival) -> String {
        let (host, internet) = if self.is_v4 {
            (HOST_V4, SERVER_V4)
        } else {
            (HOST_V6, SERVER_V6)
        };
        let is_to_host = self.kind.is_refused() || self.kind == Kind::ConnectOwn;
        let to: IpAddr = if is_to_host { host } else { internet };
        let is_let = rival == Rival::Unfenced;
        let (load, port) = match self.kind {
            Kind::ConnectUdp => ("connect-udp", DISCARD),
            Kind::SendUdp => ("send-udp", DISCARD),
            Kind::ConnectTcp => ("connect-tcp", ACCEPT),
            Kind::ConnectTcpAlone => ("connect-tcp-alone", ACCEPT),
            Kind::ConnectOwn => ("connect-tcp", OWN),
            Kind::RefusedConnectUdp if is_let => ("connect-udp", DISCARD),
            Kind::RefusedConnectUdp => ("refused-connect-udp", DISCARD),
            Kind::RefusedSendUdp if is_let => ("send-udp", SOURCE),
            Kind::RefusedSendUdp => ("refused-send-udp", SOURCE),
            Kind::RefusedTcp if is_let => ("connect-tcp", ACCEPT),
            Kind::RefusedTcp => ("refused-tcp", ACCEPT),
            Kind::Upload => ("upload", SINK),
            Kind::Download => ("download", SOURCE),
            Kind::UploadUdp => ("upload-udp", DISCARD),
            Kind::DownloadUdp => ("download-udp", SOURCE),
        };
        format!("{load}/{to}/{port}")
    }
}
