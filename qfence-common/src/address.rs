//! One 128-bit space for both address families.

/// An IPv6 address in network order; IPv4 is stored as `::ffff:a.b.c.d`.
///
/// One space leaves no gap between two tables: the v4-mapped spelling of an IPv4 address is that
/// address, whichever hook it arrives in.
pub type Address = [u8; 16];

/// The upper half of the lower 64 bits of an IPv4 address; the upper 64 bits are zero.
pub(crate) const V4_MAPPED: u64 = 0xffff;

/// The length in bits of the prefix that holds all IPv4 addresses, `::ffff:0:0/96`.
pub const V4_PREFIX_BITS: u8 = 96;

/// An IPv4 address given in network order, in this space.
#[must_use]
#[inline(always)]
pub const fn from_v4(octets: [u8; 4]) -> Address {
    let [a, b, c, d] = octets;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// An IPv6 address as the kernel hands it to programs: four words whose bytes are in network order.
#[must_use]
#[inline(always)]
pub const fn from_words([a, b, c, d]: [u32; 4]) -> Address {
    let (a, b, c, d) = (
        a.to_ne_bytes(),
        b.to_ne_bytes(),
        c.to_ne_bytes(),
        d.to_ne_bytes(),
    );
    [
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
        d[3],
    ]
}

/// The IPv4 address behind one, if it is one.
#[must_use]
pub const fn to_v4(address: &Address) -> Option<[u8; 4]> {
    match *address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}

/// How a destination is reached, as far as it is known where it is judged. The policy has an answer
/// for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Path {
    /// Not known, or through a device: the address alone says whether it is the host.
    Address = 0,
    /// Through the loopback device: it is the host, whatever the address.
    Loopback = 1,
}

impl Path {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Address, Self::Loopback];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_round_trips_through_the_space_of_both() {
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
