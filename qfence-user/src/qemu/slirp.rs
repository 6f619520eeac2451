//! The user networks of a guest, and which address in them leads to the host.

use std::{
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    configuration::{Item, gather},
    emulator::{self, Emulator},
};

/// One user network, as libslirp makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The guest's name for its host, IPv4.
    host4: Ipv4Addr,
    /// The same, IPv6.
    host6: Ipv6Addr,
}

impl Network {
    /// The address that the guest dialled for QEMU to call `destination`, if that is another one: libslirp
    /// turns the host's address in the network into the loopback address (`sotranslate_out` in its
    /// socket.c).
    #[must_use]
    pub fn dialled(&self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(Ipv4Addr::LOCALHOST) => Some(self.host4.into()),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(self.host6.into()),
            _ => None,
        }
    }
}

/// Whether a program is a QEMU, by its path.
#[must_use]
pub fn is_qemu(path: &Path) -> bool {
    emulator::recognize(path) == Some(Emulator::Qemu)
}

/// The user networks of a QEMU with these arguments. It has one if it is told nothing of networks.
#[must_use]
pub fn networks(arguments: &[OsString]) -> Vec<Network> {
    // Files that are read later than QEMU did may say something else.
    let unread = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let (items, _) = gather(arguments, &unread);
    let networks: Vec<_> = items
        .iter()
        .filter(|item| is_user(item))
        .filter_map(network)
        .collect();
    let says_nothing = !items
        .iter()
        .any(|item| matches!(item.group.as_str(), "netdev" | "nic" | "net"));
    if networks.is_empty() && says_nothing {
        return vec![network_of(None, None, None, None)];
    }
    networks
}

fn is_user(item: &Item) -> bool {
    match item.group.as_str() {
        "netdev" | "nic" | "net" => item.parameters.get("type") == Some("user"),
        _ => false,
    }
}

/// `None` if an address cannot be read as QEMU would.
fn network(item: &Item) -> Option<Network> {
    let get = |key: &str| item.parameters.get(key);
    let net4 = match get("net") {
        Some(text) => Some(v4(text)?),
        None => None,
    };
    let host4 = match get("host").or_else(|| get("ip4-host")) {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    let prefix = match get("ipv6-net") {
        Some(text) => Some(text.parse::<Ipv6Net>().ok()?.network()),
        None => match get("ipv6-prefix") {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        },
    };
    let host6 = match get("ipv6-host") {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(network_of(net4, host4, prefix, host6))
}

/// The host is the second address of the network (`net_slirp_init` in QEMU's net/slirp.c).
fn network_of(
    net4: Option<Ipv4Addr>,
    host4: Option<Ipv4Addr>,
    prefix: Option<Ipv6Addr>,
    host6: Option<Ipv6Addr>,
) -> Network {
    let net4 = net4.unwrap_or(Ipv4Addr::new(10, 0, 2, 0));
    let prefix = prefix.unwrap_or(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0));
    Network {
        host4: host4.unwrap_or(Ipv4Addr::from(u32::from(net4) | 2)),
        host6: host6.unwrap_or(Ipv6Addr::from(u128::from(prefix) | 2)),
    }
}

/// `192.168.76.0/24`, or an address with a mask: the network's address.
fn v4(text: &str) -> Option<Ipv4Addr> {
    if let Ok(net) = text.parse::<Ipv4Net>() {
        return Some(net.network());
    }
    let (address, mask) = text.split_once('/').unwrap_or((text, "255.255.255.0"));
    Some(address.parse::<Ipv4Addr>().ok()? & mask.parse::<Ipv4Addr>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(line: &str, destination: &str) -> Vec<Option<String>> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        networks(&words)
            .iter()
            .map(|network| network.dialled(destination.parse().unwrap()))
            .map(|dialled| dialled.map(|address| address.to_string()))
            .collect()
    }

    #[test]
    fn the_hosts_address_in_a_network_leads_to_loopback() {
        for (line, v4, v6) in [
            ("-m 512", "10.0.2.2", "fec0::2"),
            ("-nic user", "10.0.2.2", "fec0::2"),
            ("-netdev user,id=n", "10.0.2.2", "fec0::2"),
            ("-nic user,net=192.168.76.0/24", "192.168.76.2", "fec0::2"),
            (
                "-nic user,net=192.168.76.0/255.255.255.0",
                "192.168.76.2",
                "fec0::2",
            ),
            ("-nic user,host=10.0.2.9", "10.0.2.9", "fec0::2"),
            ("-nic user,ipv6-net=fd00:1::/64", "10.0.2.2", "fd00:1::2"),
            ("-nic user,ipv6-host=fec0::9", "10.0.2.2", "fec0::9"),
        ] {
            assert_eq!(dialled(line, "127.0.0.1"), [Some(v4.to_owned())], "{line}");
            assert_eq!(dialled(line, "::1"), [Some(v6.to_owned())], "{line}");
            assert_eq!(dialled(line, "127.0.0.2"), [None], "{line}");
            assert_eq!(dialled(line, "192.0.2.1"), [None], "{line}");
        }
    }

    #[test]
    fn other_networks_do_not() {
        for line in ["-nic none", "-nic tap", "-net none", "-nic user,net=x"] {
            assert_eq!(dialled(line, "127.0.0.1"), [], "{line}");
        }
        let two = "-nic user -nic user,host=10.0.2.9";
        assert_eq!(dialled(two, "127.0.0.1").len(), 2);
    }

    #[test]
    fn a_qemu_is_known_by_its_path() {
        assert!(is_qemu(Path::new("/usr/bin/qemu-system-x86_64")));
        assert!(!is_qemu(Path::new("/usr/bin/ssh")));
    }
}
