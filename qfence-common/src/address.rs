//! One 128-bit address space for both address families.

/// An IPv6 address in network order; IPv4 is stored as `::ffff:a.b.c.d`.
///
/// With a single space, the v4-mapped form of an IPv4 address equals that address at every hook. Two tables could
/// disagree.
pub type Address = [u8; 16];

/// The upper half of the lower 64 bits of an IPv4 address; the upper 64 bits are zero.
const V4_MAPPED: u64 = 0xffff;

/// The length in bits of the prefix of all IPv4 addresses, `::ffff:0:0/96`.
pub const V4_PREFIX_BITS: u8 = 96;

/// Converts an IPv4 address in network order to this space.
#[must_use]
#[inline(always)]
pub const fn from_v4(octets: [u8; 4]) -> Address {
    let [a, b, c, d] = octets;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// An address as two numbers: the form that the policy compares, and that is written word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Halves {
    /// The first eight bytes.
    pub upper: u64,
    /// The last eight bytes.
    pub lower: u64,
}

impl Halves {
    /// `::`, used if there is no address.
    pub const NONE: Self = Self { upper: 0, lower: 0 };

    /// Splits an address.
    #[must_use]
    pub const fn of(address: Address) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        Self {
            upper: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            lower: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// Converts an IPv4 address, given as a number.
    #[must_use]
    #[inline(always)]
    pub const fn from_v4(number: u32) -> Self {
        Self {
            upper: 0,
            lower: V4_MAPPED << 32 | number as u64,
        }
    }

    /// Converts an IPv6 address, given as four numbers.
    #[must_use]
    #[inline(always)]
    pub const fn from_v6([a, b, c, d]: [u32; 4]) -> Self {
        Self {
            upper: (a as u64) << 32 | b as u64,
            lower: (c as u64) << 32 | d as u64,
        }
    }

    /// Whether it is an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.upper == 0 && self.lower >> 32 == V4_MAPPED
    }

    /// Whether a call with this address as its destination goes to the loopback of its network namespace: 127.0.0.0/8, ::1,
    /// and the unspecified address, by which the kernel means its own (`ip_route_output_key_hash_rcu` in
    /// net/ipv4/route.c, `__ip6_datagram_connect` in net/ipv6/datagram.c).
    #[must_use]
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        let low = self.lower & 0xffff_ffff;
        if self.is_v4() {
            return low >> 24 == 127 || low == 0;
        }
        self.upper == 0 && self.lower <= 1
    }

    /// Whether it is the unspecified address, 0.0.0.0 or `::`.
    #[must_use]
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.upper == 0 && (self.lower == 0 || self.lower == V4_MAPPED << 32)
    }

    /// Joins the halves to an address.
    #[must_use]
    #[inline(always)]
    pub const fn address(self) -> Address {
        ((self.upper as u128) << 64 | self.lower as u128).to_be_bytes()
    }
}

const _: () = assert!(size_of::<Halves>() == 16 && align_of::<Halves>() == 8);

/// Returns the IPv4 address of a v4-mapped address, otherwise `None`.
#[must_use]
pub const fn to_v4(address: &Address) -> Option<[u8; 4]> {
    match *address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}

/// The path of a destination, as far as the hook knows it. The policy has a verdict for each path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LookupPath {
    /// Unknown, or through another device: the address alone decides whether the destination is the host.
    Address = 0,
    /// Through the loopback device: the destination is the host, whatever its address.
    Loopback = 1,
}

impl LookupPath {
    /// Both paths.
    pub const ALL: [Self; 2] = [Self::Address, Self::Loopback];
}

// SAFETY: a `repr(C)` struct of integers without padding: any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Halves {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_round_trips_through_the_space_of_both() {
        assert_eq!(to_v4(&from_v4([127, 0, 0, 53])), Some([127, 0, 0, 53]));
    }

    #[test]
    fn halves_are_the_address() {
        let v6 = core::array::from_fn(|at| u8::try_from(at).unwrap());
        let halves = Halves::of(v6);
        assert_eq!(halves.address(), v6);
        let words = [0x0001_0203, 0x0405_0607, 0x0809_0a0b, 0x0c0d_0e0f];
        assert_eq!(Halves::from_v6(words), halves);
        assert!(!halves.is_v4());
        let v4 = Halves::from_v4(0x7f00_0035);
        assert_eq!(v4.address(), from_v4([127, 0, 0, 53]));
        assert!(v4.is_v4());
    }

    #[test]
    fn loopback_is_what_leads_to_oneself() {
        let v4 = |octets| Halves::of(from_v4(octets));
        for octets in [[127, 0, 0, 1], [127, 255, 255, 255], [0, 0, 0, 0]] {
            assert!(v4(octets).is_loopback(), "{octets:?}");
        }
        for octets in [
            [126, 0, 0, 1],
            [128, 0, 0, 1],
            [0, 0, 0, 1],
            [10, 0, 0, 127],
        ] {
            assert!(!v4(octets).is_loopback(), "{octets:?}");
        }
        let v6 = |upper, lower| Halves { upper, lower };
        let unspecified = [v4([0, 0, 0, 0]), v6(0, 0)];
        assert!(unspecified.iter().all(|address| address.is_unspecified()));
        let others = [v4([0, 0, 0, 1]), v4([127, 0, 0, 1]), v6(0, 1), v6(1, 0)];
        assert!(!others.iter().any(|address| address.is_unspecified()));
        assert!(v6(0, 0).is_loopback() && v6(0, 1).is_loopback());
        for other in [
            v6(0, 2),
            v6(1, 0),
            v6(1, 1),
            v6(0, 0x7f00_0001),
            v6(0xfe80 << 48, 1),
        ] {
            assert!(!other.is_loopback(), "{other:?}");
        }
    }

    #[test]
    fn a_native_v6_address_is_not_v4() {
        // ::7f00:1 is the deprecated "v4-compatible" form: IPv6 to the kernel.
        let mut compatible = [0; 16];
        compatible[12] = 127;
        compatible[15] = 1;
        assert_eq!(to_v4(&compatible), None);
        assert!(!Halves::of(compatible).is_v4());
    }
}
