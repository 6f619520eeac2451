//! One 128-bit key space for both address families, and the keys of the policy map.

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

/// A key of the policy map: the path, then the address. A prefix's length counts the path's bits.
pub type Key = [u8; PATH_BYTES + 16];

/// The bytes of the path in a key: a word, so that the address is aligned.
const PATH_BYTES: usize = 4;

/// The bits of the path in a key.
pub const PATH_BITS: u32 = 32;

/// The bits of a whole key: the length to look one address up with.
pub const KEY_BITS: u32 = PATH_BITS + 128;

/// The key of an address on a path.
#[must_use]
#[inline(always)]
pub const fn key(path: Path, address: Address) -> Key {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        path as u8, 0, 0, 0, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p,
    ]
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

    #[test]
    fn a_key_is_the_path_and_then_the_address() {
        let address: Address = core::array::from_fn(|index| u8::try_from(index).unwrap() + 1);
        let key = key(Path::Loopback, address);
        assert_eq!(key[..4], [1, 0, 0, 0]);
        assert_eq!(key[4..], address);
        assert_eq!(u32::try_from(key.len()).unwrap() * 8, KEY_BITS);
    }
}
