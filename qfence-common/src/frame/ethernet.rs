//! The header of an Ethernet frame.

/// The ethertype of IPv4.
pub const IPV4: u32 = 0x0800;

/// The ethertype of ARP.
pub const ARP: u32 = 0x0806;

/// The ethertype of IPv6.
pub const IPV6: u32 = 0x86dd;

/// The length of the header in bytes.
pub const HEADER: u32 = 14;

/// The bits of a VLAN tag that are the number of the VLAN. A tag with the number 0 has only a priority.
pub const VLAN: u32 = 0x0fff;

/// Converts a MAC address to a number. The first byte is the most significant of six.
#[must_use]
pub const fn mac_number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Converts a number to a MAC address. The upper two bytes do not matter.
#[must_use]
pub const fn mac_bytes(number: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
    [a, b, c, d, e, f]
}

/// Whether a MAC address, as a number, is that of a group: multicast or broadcast.
#[must_use]
#[inline(always)]
pub const fn is_group(mac: u64) -> bool {
    mac >> 40 & 1 != 0
}

/// The MAC addresses of a frame, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs {
    /// The destination.
    pub to: u64,
    /// The source.
    pub from: u64,
}

impl Macs {
    /// Takes them out of the first three words of a frame.
    #[must_use]
    #[inline(always)]
    pub const fn of_words([a, b, c]: [u32; 3]) -> Self {
        Self {
            to: (a as u64) << 16 | b as u64 >> 16,
            from: (b as u64 & 0xffff) << 32 | c as u64,
        }
    }

    /// The first three words of an answer to the frame.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it")]
    pub const fn answer(self) -> [u32; 3] {
        let Self { to, from } = self;
        [
            (from >> 16) as u32,
            (from as u32 & 0xffff) << 16 | (to >> 32) as u32 & 0xffff,
            to as u32,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: [u8; 6] = [0x52, 0x54, 0, 0xab, 0xcd, 0xef];
    const FROM: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0xfe];

    fn words(to: [u8; 6], from: [u8; 6]) -> [u32; 3] {
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&to);
        bytes[6..].copy_from_slice(&from);
        let (words, _) = bytes.as_chunks();
        core::array::from_fn(|at| u32::from_be_bytes(words[at]))
    }

    #[test]
    fn addresses_are_read_as_numbers_and_swapped_in_an_answer() {
        let macs = Macs::of_words(words(TO, FROM));
        assert_eq!(macs.to, mac_number(TO));
        assert_eq!(macs.from, mac_number(FROM));
        assert_eq!(mac_bytes(macs.from), FROM);
        assert_eq!(macs.answer(), words(FROM, TO));
    }

    #[test]
    fn the_lowest_bit_of_the_first_byte_is_that_of_groups() {
        for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            assert!(is_group(mac_number(mac)), "{mac:?}");
        }
        for mac in [TO, FROM, [0xfe, 1, 1, 1, 1, 1]] {
            assert!(!is_group(mac_number(mac)), "{mac:?}");
        }
    }
}
