//! The options of a probe's sockets besides its method, and their syntax.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::spec::{SpecError, read_address, read_port};

/// The options of a probe's sockets besides its method. Written `+name` or `+name=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// `+dev=NAME`: the socket is bound to a device, by `SO_BINDTODEVICE`.
    pub device: Option<String>,
    /// `+unicast-if=NAME`: `IP_UNICAST_IF` or `IPV6_UNICAST_IF`.
    pub unicast_if: Option<String>,
    /// `+multicast-if=NAME`: `IP_MULTICAST_IF` or `IPV6_MULTICAST_IF`.
    pub multicast_if: Option<String>,
    /// `+pktinfo=NAME`: each message selects the device, by `IP_PKTINFO` or `IPV6_PKTINFO`.
    pub packet_info: Option<String>,
    /// `+src=ADDRESS`: the socket is bound to this address.
    pub source: Option<IpAddr>,
    /// `+port=NUMBER`: the socket is bound to this port.
    pub source_port: Option<u16>,
    /// `+reuse`: `SO_REUSEADDR` and `SO_REUSEPORT`.
    pub reuse: bool,
    /// `+freebind`: `IP_FREEBIND`; the source need not be a local address.
    pub freebind: bool,
    /// `+transparent`: `IP_TRANSPARENT`; for root only.
    pub transparent: bool,
    /// `+decoy=ADDRESS`: another destination with the same port, to which the socket is connected first.
    pub decoy: Option<IpAddr>,
    /// `+lsrr=ADDRESS`: an intermediate destination, by the IPv4 option "loose source and record route".
    pub loose_route: Option<Ipv4Addr>,
    /// `+srh=ADDRESS`: an intermediate destination, by an IPv6 segment routing header (type 4).
    pub segment: Option<Ipv6Addr>,
    /// `+rh2=ADDRESS`: an intermediate destination, by an IPv6 routing header of type 2.
    pub home_route: Option<Ipv6Addr>,
    /// `+on-v6`: an IPv6 socket with an IPv4 socket address.
    pub on_v6: bool,
    /// `+unspec`: an IPv4 socket address with the family `AF_UNSPEC`.
    pub unspec: bool,
    /// `+compat`: broadcasts are enabled by a 32-bit system call.
    pub compat: bool,
    /// `+pause`: waits before the first byte is sent (after connect()), until it is told to continue.
    pub pause: bool,
}

impl Options {
    /// Sets the option of one word, `name` or `name=value`.
    pub(super) fn set(&mut self, word: &str) -> Result<(), SpecError> {
        let unknown = || SpecError::Option(word.to_owned());
        let Some((name, value)) = word.split_once('=') else {
            let flag = match word {
                "reuse" => &mut self.reuse,
                "freebind" => &mut self.freebind,
                "transparent" => &mut self.transparent,
                "on-v6" => &mut self.on_v6,
                "unspec" => &mut self.unspec,
                "compat" => &mut self.compat,
                "pause" => &mut self.pause,
                _ => return Err(unknown()),
            };
            *flag = true;
            return Ok(());
        };
        match name {
            "dev" => self.device = Some(value.to_owned()),
            "unicast-if" => self.unicast_if = Some(value.to_owned()),
            "multicast-if" => self.multicast_if = Some(value.to_owned()),
            "pktinfo" => self.packet_info = Some(value.to_owned()),
            "src" => self.source = Some(read_address(value)?),
            "port" => self.source_port = Some(read_port(value)?),
            "decoy" => self.decoy = Some(read_address(value)?),
            "lsrr" => self.loose_route = Some(read_address(value)?),
            "srh" => self.segment = Some(read_address(value)?),
            "rh2" => self.home_route = Some(read_address(value)?),
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: [(&str, Option<&dyn fmt::Display>); 10] = [
            ("dev", self.device.as_ref().map(|value| value as _)),
            (
                "unicast-if",
                self.unicast_if.as_ref().map(|value| value as _),
            ),
            (
                "multicast-if",
                self.multicast_if.as_ref().map(|value| value as _),
            ),
            ("pktinfo", self.packet_info.as_ref().map(|value| value as _)),
            ("src", self.source.as_ref().map(|value| value as _)),
            ("port", self.source_port.as_ref().map(|value| value as _)),
            ("decoy", self.decoy.as_ref().map(|value| value as _)),
            ("lsrr", self.loose_route.as_ref().map(|value| value as _)),
            ("srh", self.segment.as_ref().map(|value| value as _)),
            ("rh2", self.home_route.as_ref().map(|value| value as _)),
        ];
        for (name, value) in values {
            value.map_or(Ok(()), |value| write!(out, "+{name}={value}"))?;
        }
        let flags = [
            ("reuse", self.reuse),
            ("freebind", self.freebind),
            ("transparent", self.transparent),
            ("on-v6", self.on_v6),
            ("unspec", self.unspec),
            ("compat", self.compat),
            ("pause", self.pause),
        ];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            write!(out, "+{name}")?;
        }
        Ok(())
    }
}
