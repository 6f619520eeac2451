//! Whether processes in a fence have made internet sockets. If not, its end need not wait for the kernel's report that no socket
//! of the fence is left.

use std::{fs, path::Path};

use super::maps::Maps;

/// The protocols of all sockets.
const PROTOCOLS: &str = "/proc/net/protocols";

/// Those whose sockets pass the hook sock_create if they send through the internet protocols (`inet_create` in
/// net/ipv4/af_inet.c). The kernel makes sockets for others itself, such as SMC and RxRPC, and does not ask that hook.
const COUNTED: [&str; 22] = [
    "AF_VSOCK",
    "ALG",
    "MPTCP",
    "MPTCPv6",
    "NETLINK",
    "PACKET",
    "PING",
    "PINGv6",
    "RAW",
    "RAWv6",
    "SCTP",
    "SCTPv6",
    "TCP",
    "TCPv6",
    "UDP",
    "UDP-Lite",
    "UDPLITEv6",
    "UDPv6",
    "UNIX",
    "UNIX-STREAM",
    "VSOCK",
    "XDP",
];

/// Whether no more internet sockets than `own` were made in the fence whose pins are in a directory. False if that is not known.
/// Its cgroup must be gone, so that no process can make one.
pub(super) fn has_made_none(directory: &Path, own: u32) -> bool {
    let marks = Maps::open(directory).and_then(|maps| maps.marks());
    marks.is_ok_and(|marks| marks.sockets <= own)
        && fs::read_to_string(PROTOCOLS).is_ok_and(|protocols| are_counted(&protocols))
}

/// Whether the kernel has no other protocols. Their module cannot be unloaded as long as it has sockets.
fn are_counted(protocols: &str) -> bool {
    let mut names = protocols.lines().map(|line| line.split(' ').next());
    names.next() == Some(Some("protocol"))
        && names.all(|name| name.is_some_and(|name| COUNTED.contains(&name)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const HEAD: &str = "protocol  size sockets  memory press maxhdr  slab module     cl co di ac\n";

    #[test]
    fn a_protocol_whose_sockets_the_kernel_makes_is_noticed() {
        let line =
            |name: &str| format!("{name:<9} 1088      1      -1   NI       0   no   kernel\n");
        let some = format!(
            "{HEAD}{}{}{}",
            line("AF_VSOCK"),
            line("UNIX-STREAM"),
            line("TCP")
        );
        assert!(are_counted(HEAD) && are_counted(&some));
        for name in ["SMC", "SMC6", "RXRPC", "KCM", "TCP2", ""] {
            assert!(!are_counted(&format!("{some}{}", line(name))), "{name}");
        }
        for text in ["", "\n", &line("TCP")] {
            assert!(!are_counted(text), "{text:?}");
        }
    }

    #[test]
    fn this_kernel_lists_the_internet_protocols() {
        let _socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let protocols = fs::read_to_string(PROTOCOLS).unwrap();
        let names: Vec<_> = protocols
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert!(
            ["protocol", "TCP", "UDP", "UNIX"]
                .iter()
                .all(|name| names.contains(name))
        );
    }

    #[test]
    fn a_fence_whose_marks_cannot_be_read_may_have_made_some() {
        assert!(!has_made_none(Path::new("/nowhere"), u32::MAX));
    }
}
