//! One 128-bit key space for both address families.

/// An IPv6 address in network order; IPv4 is stored as `::ffff:a.b.c.d`.
///
/// One space leaves no gap between two tables: the v4-mapped spelling of an IPv4 address is that
/// address, whichever hook it arrives in.
pub type Address = [u8; 16];

/// The bytes before the four of an IPv4 address.
const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The length in bits of the prefix that holds all IPv4 addresses, `::ffff:0:0/96`.
pub const V4_PREFIX_BITS: u8 = 96;

/// The key of an IPv4 address given in network order.
#[must_use]
#[inline(always)]
pub const fn from_v4(octets: [u8; 4]) -> Address {
    let [a, b, c, d] = octets;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address behind a key, if it is one.
#[must_use]
pub fn to_v4(address: &Address) -> Option<[u8; 4]> {
    let (head, tail) = address.split_at(12);
    if head == V4_MAPPED {
        tail.try_into().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_round_trips_through_the_key_space() {
        assert_eq!(to_v4(&from_v4([127, 0, 0, 53])), Some([127, 0, 0, 53]));
    }

    #[test]
    fn a_native_v6_address_is_not_v4() {
        // ::7f00:1 is the deprecated "v4-compatible" form: IPv6 to the kernel.
        let mut compatible = [0; 16];
        compatible[12] = 127;
        compatible[15] = 1;
        assert_eq!(to_v4(&compatible), None);
    }
}
