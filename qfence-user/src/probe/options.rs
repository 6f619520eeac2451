//! What is done to a socket beside the way it is used, and how that is written.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::spec::{SpecError, read_address, read_port};

/// What is done to a socket beside the way it is used. Written `+name` or `+name=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// `+dev=NAME`: bound to a device, by `SO_BINDTODEVICE`.
    pub device: Option<String>,
    /// `+unicast-if=NAME`: `IP_UNICAST_IF` or `IPV6_UNICAST_IF`.
    pub unicast_if: Option<String>,
    /// `+multicast-if=NAME`: `IP_MULTICAST_IF` or `IPV6_MULTICAST_IF`.
    pub multicast_if: Option<String>,
    /// `+pktinfo=NAME`: each message says which device to use, by `IP_PKTINFO` or `IPV6_PKTINFO`.
    pub packet_info: Option<String>,
    /// `+src=ADDRESS`: bound to that address.
    pub source: Option<IpAddr>,
    /// `+port=NUMBER`: bound to that port.
    pub source_port: Option<u16>,
    /// `+reuse`: `SO_REUSEADDR` and `SO_REUSEPORT`.
    pub reuse: bool,
    /// `+freebind`: `IP_FREEBIND`; the source need not be an own address.
    pub freebind: bool,
    /// `+transparent`: `IP_TRANSPARENT`; for root alone.
    pub transparent: bool,
    /// `+decoy=ADDRESS`: another destination, same port, to which the socket is connected first.
    pub decoy: Option<IpAddr>,
    /// `+lsrr=ADDRESS`: goes there first, by the IPv4 option "loose source and record route".
    pub loose_route: Option<Ipv4Addr>,
    /// `+srh=ADDRESS`: goes there first, by an IPv6 segment routing header (type 4).
    pub segment: Option<Ipv6Addr>,
    /// `+rh2=ADDRESS`: goes there first, by an IPv6 routing header of type 2.
    pub home_route: Option<Ipv6Addr>,
    /// `+on-v6`: the socket is of IPv6, the socket address of IPv4.
    pub on_v6: bool,
    /// `+unspec`: the socket address is of IPv4, and its family says `AF_UNSPEC`.
    pub unspec: bool,
    /// `+compat`: what allows broadcasts is a call of 32 bits.
    pub compat: bool,
    /// `+pause`: stops before the first byte is sent (after connect()), until told to go on.
    pub pause: bool,
}

impl Options {
    /// Reads one word, `name` or `name=value`.
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
