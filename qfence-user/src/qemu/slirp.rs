//! The user networks of a guest, and the addresses in them that lead to the host.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{
    configuration::Item,
    emulator::{self, Emulator},
};

/// The user networks in a QEMU's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The networks.
    pub networks: Vec<Network>,
    /// Whether datagrams of QEMU may be its own instead of its guest's, because it has a network that it carries in
    /// datagrams.
    pub datagrams_are_qemus: bool,
}

/// One user network, as libslirp makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The guest's IPv4 address of the host.
    host4: Ipv4Addr,
    /// The guest's IPv6 address of the host.
    host6: Ipv6Addr,
}

impl Network {
    /// The address that the guest dialled when QEMU connects to `destination`, if it is a different one. libslirp
    /// translates the host's address in the network to the loopback address (`sotranslate_out` in its socket.c).
    #[must_use]
    pub fn dialled(&self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(Ipv4Addr::LOCALHOST) => Some(self.host4.into()),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(self.host6.into()),
            _ => None,
        }
    }
}

/// Whether an executable is a QEMU, by its path.
#[must_use]
pub fn is_qemu(path: &Path) -> bool {
    emulator::recognize(path) == Some(Emulator::Qemu)
}

impl Guest {
    /// The user networks of a QEMU with this configuration. Without any network option, QEMU has one user network.
    #[must_use]
    pub fn of(items: &[Item]) -> Self {
        let of_networks = |item: &&Item| matches!(item.group.as_str(), "netdev" | "nic" | "net");
        let told: Vec<_> = items.iter().filter(of_networks).collect();
        let user = told.iter().filter(|item| type_of(item) == "user");
        let networks = if told.is_empty() {
            vec![network_of(None, None, None, None)]
        } else {
            user.filter_map(|item| network(item)).collect()
        };
        Self {
            networks,
            datagrams_are_qemus: told.iter().any(|item| sends_datagrams(item)),
        }
    }

    /// The address that the guest dialled when QEMU connects to `destination`, if it is a different one.
    #[must_use]
    pub fn dialled(&self, destination: IpAddr) -> Option<IpAddr> {
        let networks = self.networks.iter();
        let mut dialled = networks.filter_map(|network| network.dialled(destination));
        let first = dialled.next()?;
        // If the networks differ, it is not known which one was used.
        dialled.all(|other| other == first).then_some(first)
    }
}

/// The type of a network. The default of `-nic` is in `net_param_nic` in QEMU's net/net.c.
fn type_of(item: &Item) -> &str {
    let unsaid = if item.group == "nic" { "user" } else { "" };
    item.parameters.get("type").unwrap_or(unsaid)
}

/// Whether QEMU sends datagrams of its own for this network. For an unknown type it may.
fn sends_datagrams(item: &Item) -> bool {
    match type_of(item) {
        "user" | "nic" | "none" | "hubport" | "passt" | "stream" | "tap" | "bridge"
        | "vhost-user" | "vhost-vdpa" => false,
        "socket" => !["listen", "connect"]
            .iter()
            .any(|key| item.parameters.get(key).is_some()),
        _ => true,
    }
}

/// `None` if an address cannot be parsed as QEMU would.
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

/// The host has the second address of the network (`net_slirp_init` in QEMU's net/slirp.c).
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

/// The network address of `192.168.76.0/24`, or of an address with a mask.
fn v4(text: &str) -> Option<Ipv4Addr> {
    if let Ok(net) = text.parse::<Ipv4Net>() {
        return Some(net.network());
    }
    let (address, mask) = text.split_once('/').unwrap_or((text, "255.255.255.0"));
    Some(address.parse::<Ipv4Addr>().ok()? & mask.parse::<Ipv4Addr>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, io};

    use super::{super::configuration::gather, *};

    fn guest(line: &str) -> Guest {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let unread = |_: &Path| Err(io::ErrorKind::NotFound.into());
        Guest::of(&gather(&words, &unread).0)
    }

    fn dialled(line: &str, destination: &str) -> Vec<Option<String>> {
        guest(line)
            .networks
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
            ("-nic model=virtio-net-pci", "10.0.2.2", "fec0::2"),
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
        assert_eq!(guest(two).dialled(Ipv4Addr::LOCALHOST.into()), None);
        let same = "-nic user -nic user,hostfwd=tcp::2222-:22";
        let host = Some(Ipv4Addr::new(10, 0, 2, 2).into());
        assert_eq!(guest(same).dialled(Ipv4Addr::LOCALHOST.into()), host);
    }

    #[test]
    fn datagrams_may_be_qemus_own_if_a_network_is_carried_in_them() {
        for (line, own) in [
            ("", false),
            ("-nic user", false),
            ("-nic user -netdev stream,id=n,addr.type=inet", false),
            ("-nic user -netdev socket,id=n,connect=192.0.2.1:1", false),
            ("-nic user -netdev socket,id=n,listen=:1", false),
            ("-nic user -netdev socket,id=n,udp=192.0.2.1:1", true),
            ("-nic user -netdev socket,id=n,mcast=230.0.0.1:1", true),
            ("-nic user -netdev dgram,id=n,remote.type=inet", true),
            ("-nic user -netdev l2tpv3,id=n,src=192.0.2.1", true),
            ("-nic user -netdev from-the-future,id=n", true),
        ] {
            assert_eq!(guest(line).datagrams_are_qemus, own, "{line}");
        }
    }

    #[test]
    fn a_qemu_is_known_by_its_path() {
        assert!(is_qemu(Path::new("/usr/bin/qemu-system-x86_64")));
        assert!(!is_qemu(Path::new("/usr/bin/ssh")));
    }
}
