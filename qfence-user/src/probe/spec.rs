//! A probe and its syntax: `METHOD/ADDRESS[%DEVICE][/PORT][+OPTION…]`, for example
//! `udp-sendmmsg/192.0.2.255/8080+dev=eth0`.

use std::{fmt, net::IpAddr, str::FromStr};

use thiserror::Error;

use super::{
    method::{Datagram, Method, Sending},
    options::Options,
};

/// One outgoing test of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The type of socket and its use.
    pub method: Method,
    /// The destination.
    pub destination: Destination,
    /// The port; 0 for methods without ports.
    pub port: u16,
    /// Further options of the socket.
    pub options: Options,
}

/// An address, with its device if it is link-local.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address.
    pub address: IpAddr,
    /// The device, for `sin6_scope_id`.
    pub zone: Option<String>,
}

/// The reason for which a text is not a probe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The number of parts is not two or three.
    #[error("{0:?} is not METHOD/ADDRESS[/PORT][+OPTION…]")]
    Shape(String),
    /// The first part.
    #[error("no method is called {0:?}")]
    Method(String),
    /// The second part, or an option's value.
    #[error("{0:?} is no IP address of the right family")]
    Address(String),
    /// The third part, or an option's value.
    #[error("{0:?} is no port")]
    Port(String),
    /// An option that is unknown, lacks its value, or must not have a value.
    #[error("{0:?} is no option")]
    Option(String),
    /// A combination that is not possible.
    #[error("{0} goes {1}")]
    Combination(String, &'static str),
}

impl Probe {
    /// Checks the combination: an option that would have no effect is an error.
    fn check(self) -> Result<Self, SpecError> {
        let Self {
            method,
            destination,
            port,
            options,
        } = &self;
        let v4 = destination.address.is_ipv4();
        let v4_packet = destination.address.to_canonical().is_ipv4();
        // These methods do not use sendmsg() with the message of socket2.
        let own_call = matches!(
            method,
            Method::Datagram(_, Sending::Sendmmsg | Sending::Splice | Sending::Uring)
                | Method::Datagram(_, Sending::UringConnected)
        );
        let is_datagram = matches!(method, Method::Datagram(..));
        let is_connected = method.sends(Sending::Connected) || method.sends(Sending::Reconnected);
        let is_udp = matches!(
            method,
            Method::Datagram(Datagram::Udp | Datagram::UdpLite, _)
        );
        let complaint = if method.has_port() != (port != &0) {
            "with a port, but for l2tp, ping, raw-icmp and raw-253, which have none"
        } else if method.has_decoy() != options.decoy.is_some() {
            "with +decoy=, if and only if it is connected to something else first"
        } else if options.packet_info.is_some() && (!is_datagram || own_call) {
            "with methods that send packets by sendmsg(), if +pktinfo= does"
        } else if options.unspec && (!is_datagram || own_call || is_connected || !v4) {
            "with methods that send IPv4 packets by sendmsg() with the address, if +unspec does"
        } else if options.on_v6 && !(is_udp && v4) {
            "with udp and udplite over IPv4, if +on-v6 does"
        } else if options.loose_route.is_some() && !v4_packet {
            "with IPv4, if +lsrr= does"
        } else if (options.segment.is_some() || options.home_route.is_some()) && v4 {
            "with IPv6, if +srh= or +rh2= does"
        } else if options.compat && !(is_datagram && v4) {
            "with packets over IPv4, if +compat does"
        } else if destination.zone.is_some() && v4 {
            "with IPv6, if a device does"
        } else {
            return Ok(self);
        };
        Err(SpecError::Combination(self.to_string(), complaint))
    }
}

impl FromStr for Probe {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut words = text.split('+');
        let parts: Vec<&str> = words.next().unwrap_or_default().split('/').collect();
        let (method, destination, port) = match parts[..] {
            [method, destination] => (method, destination, 0),
            [method, destination, port] => (method, destination, read_port(port)?),
            _ => return Err(SpecError::Shape(text.to_owned())),
        };
        let mut options = Options::default();
        for word in words {
            options.set(word)?;
        }
        let probe = Self {
            method: method.parse()?,
            destination: destination.parse()?,
            port,
            options,
        };
        probe.check()
    }
}

impl FromStr for Destination {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (text, None),
        };
        let address = read_address(address)?;
        Ok(Self { address, zone })
    }
}

pub(super) fn read_address<T: FromStr>(text: &str) -> Result<T, SpecError> {
    text.parse()
        .map_err(|_| SpecError::Address(text.to_owned()))
}

pub(super) fn read_port(text: &str) -> Result<u16, SpecError> {
    text.parse().map_err(|_| SpecError::Port(text.to_owned()))
}

impl fmt::Display for Probe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.method, self.destination)?;
        if self.port != 0 {
            write!(out, "/{}", self.port)?;
        }
        write!(out, "{}", self.options)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.address)?;
        self.zone
            .as_ref()
            .map_or(Ok(()), |zone| write!(out, "%{zone}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "tcp/127.0.0.1/8080",
            "udp-sendmmsg/192.0.2.255/8080+dev=eth0",
            "udp/fe80::10%eth0/53",
            "udp/::ffff:127.0.0.1/1+src=::+port=4000+reuse",
            "ping/192.0.2.10+lsrr=198.51.100.7",
            "ping/192.0.2.255+compat",
            "ping/2001:db8::1+srh=2001:db8::2",
            "ping/2001:db8::1+rh2=2001:db8::2",
            "raw-header/10.0.2.2/8080+src=10.0.2.15",
            "udp-elsewhere/127.0.0.1/8080+decoy=198.51.100.7+on-v6+unspec+pause",
            "udp/127.0.0.1/1+unicast-if=lo+multicast-if=lo+pktinfo=lo+freebind+transparent",
        ] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_probe_says_what_is_wrong() {
        for (text, complaint) in [
            ("", "is not METHOD"),
            ("tcp/127.0.0.1/80/80", "is not METHOD"),
            ("tpc/127.0.0.1/80", "no method is called \"tpc\""),
            ("tcp/localhost/80", "\"localhost\" is no IP address"),
            ("tcp/127.0.0.1/65536", "\"65536\" is no port"),
            ("udp/127.0.0.1/1+src=lo", "\"lo\" is no IP address"),
            ("udp/127.0.0.1/1+lsrr=::1", "\"::1\" is no IP address"),
            ("udp/127.0.0.1/1+dev", "\"dev\" is no option"),
            ("udp/127.0.0.1/1+reuse=1", "\"reuse=1\" is no option"),
            ("tcp/127.0.0.1", "goes with a port"),
            ("ping/127.0.0.1/7", "goes with a port"),
            ("udp-elsewhere/127.0.0.1/1", "goes with +decoy="),
            ("udp/127.0.0.1/1+decoy=192.0.2.1", "goes with +decoy="),
            ("tcp/127.0.0.1/1+pktinfo=lo", "if +pktinfo= does"),
            ("udp/::1/1+unspec", "if +unspec does"),
            ("udp/::1/1+on-v6", "if +on-v6 does"),
            ("udp/::1/1+lsrr=127.0.0.1", "if +lsrr= does"),
            ("udp/127.0.0.1/1+srh=::1", "if +srh= or +rh2= does"),
            ("udp-connected/127.0.0.1/1+unspec", "if +unspec does"),
            ("ping/127.0.0.1+on-v6", "if +on-v6 does"),
            ("ping/::1+compat", "if +compat does"),
            ("tcp/127.0.0.1/1+compat", "if +compat does"),
            ("udp/127.0.0.1%lo/1", "if a device does"),
        ] {
            let error = text.parse::<Probe>().unwrap_err().to_string();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
