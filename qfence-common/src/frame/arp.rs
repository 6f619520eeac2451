//! ARP messages for Ethernet and IPv4.

/// The number of words of a message.
pub const WORDS: usize = 7;

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Whether it is a request; otherwise it is a reply.
    pub is_request: bool,
    /// The MAC address that the sender claims, as a number.
    pub sender_mac: u64,
    /// The IPv4 address that the sender claims, as a number; 0 if it asks whether its future address is in use.
    pub sender: u32,
    /// The IPv4 address that is asked for, or that is told.
    pub target: u32,
}

/// Ethernet and IPv4 (the first word), and the lengths of their addresses (the upper half of the second).
const ETHERNET_IPV4: u32 = 1 << 16 | 0x0800;
const LENGTHS: u32 = 6 << 8 | 4;
const REQUEST: u32 = 1;
const REPLY: u32 = 2;

impl Arp {
    /// Reads a message; `None` if it is not a request or a reply for Ethernet and IPv4.
    #[must_use]
    #[inline(always)]
    pub fn read([first, second, a, b, c, _, target]: [u32; WORDS]) -> Option<Self> {
        let operation = second & 0xffff;
        if first != ETHERNET_IPV4
            || second >> 16 != LENGTHS
            || !matches!(operation, REQUEST | REPLY)
        {
            return None;
        }
        Some(Self {
            is_request: operation == REQUEST,
            sender_mac: u64::from(a) << 16 | u64::from(b) >> 16,
            sender: (b & 0xffff) << 16 | c >> 16,
            target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of 52:54:00:12:34:56, 192.168.122.50, for 192.168.122.1.
    const REQUEST: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, lengths, request
        0x52, 0x54, 0, 0x12, 0x34, 0x56, 192, 168, 122, 50, // sender
        0, 0, 0, 0, 0, 0, 192, 168, 122, 1, // target
    ];

    fn read(bytes: &[u8; 28]) -> Option<Arp> {
        let (words, _) = bytes.as_chunks();
        Arp::read(core::array::from_fn(|at| u32::from_be_bytes(words[at])))
    }

    #[test]
    fn a_request_has_its_sender_and_its_target() {
        let request = Arp {
            is_request: true,
            sender_mac: 0x5254_0012_3456,
            sender: u32::from_be_bytes([192, 168, 122, 50]),
            target: u32::from_be_bytes([192, 168, 122, 1]),
        };
        assert_eq!(read(&REQUEST), Some(request));
        let mut reply = REQUEST;
        reply[7] = 2;
        let told = Arp {
            is_request: false,
            ..request
        };
        assert_eq!(read(&reply), Some(told));
    }

    #[test]
    fn other_kinds_of_addresses_and_operations_are_not_read() {
        // The type of hardware, the protocol, both lengths, and the operation (RARP, inverse ARP).
        for (at, value) in [
            (1, 6),
            (3, 6),
            (2, 0x86),
            (4, 8),
            (5, 16),
            (7, 3),
            (7, 0),
            (6, 1),
        ] {
            let mut other = REQUEST;
            other[at] = value;
            assert_eq!(read(&other), None, "byte {at}");
        }
    }
}
