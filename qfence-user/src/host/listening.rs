//! Whether a nameserver of the host listens on its port itself, or the host's NAT redirects the port to another one.

use std::{fs, net::IpAddr, path::Path};

/// The port of nameservers.
const DNS: u16 = 53;

/// Whether a UDP socket of this network namespace is bound to the nameserver port of an address, or of all addresses.
/// `None` if the kernel's list cannot be read.
#[must_use]
pub fn serves_dns(proc: &Path, address: IpAddr) -> Option<bool> {
    let read = |name: &str| fs::read_to_string(proc.join("net").join(name)).ok();
    let v4 = read("udp")?;
    // Without IPv6 there is no such file.
    let v6 = read("udp6").unwrap_or_default();
    let mut bound = v4.lines().chain(v6.lines()).filter_map(local);
    Some(bound.any(|(ip, port)| {
        let is_there = ip == address || ip.is_unspecified() && (ip.is_ipv6() || address.is_ipv4());
        port == DNS && is_there
    }))
}

/// The local address and port of a line of /proc/net/udp or udp6: `sl local_address …`, in words of the machine's byte
/// order (`udp4_format_sock` in net/ipv4/udp.c).
fn local(line: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let word = |index: usize| {
        let digits = address.get(8 * index..8 * index + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_sockets_of_both_families_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("net");
        fs::create_dir(&net).unwrap();
        let header = "   sl  local_address rem_address   st tx_queue\n";
        let write = |name: &str, line: &str| fs::write(net.join(name), format!("{header}{line}\n"));
        let serves = |address: &str| serves_dns(dir.path(), address.parse().unwrap());
        assert_eq!(serves("127.0.0.11"), None);
        write("udp", "  1: 3500007F:0035 00000000:0000 07").unwrap();
        assert_eq!(serves("127.0.0.53"), Some(true));
        assert_eq!(serves("127.0.0.11"), Some(false));
        write("udp", "  1: 0B00007F:8A19 00000000:0000 07").unwrap();
        assert_eq!(serves("127.0.0.11"), Some(false), "another port");
        write("udp6", "  1: 00000000000000000000000001000000:0035 0:0 07").unwrap();
        assert_eq!(serves("::1"), Some(true));
        assert_eq!(serves("127.0.0.11"), Some(false));
        write("udp6", "  1: 00000000000000000000000000000000:0035 0:0 07").unwrap();
        assert_eq!(
            serves("127.0.0.11"),
            Some(true),
            "a socket for both families"
        );
    }
}
