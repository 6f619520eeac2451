//! Destinations for the proof, by which a start shows that its fence is in force. The programs refuse them before they
//! consult the policy, and neither count nor record it.
//!
//! They are derived from a random number of each fence, which no process in the fence knows. So a guest cannot use them
//! to make unrecorded attempts, and no policy can interfere with the proof.

use crate::{Address, Halves, unix::Name};

/// The errno of a refused proof, on kernels where programs can choose it: ENOANO (asm-generic/errno.h). No other part
/// of a socket call returns it.
pub const ERRNO: i32 = 55;

/// The length of the name of the proof at Unix sockets.
pub const NAME_BYTES: usize = 16;

/// The first word of that name. The zero byte at the begin makes it abstract (unix(7)).
const NAME_BEGIN: u64 = u64::from_ne_bytes(*b"\0qfence:");

/// The random number of a fence. 0 has no destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u64);

impl Token {
    /// An IPv4 address in 240.0.0.0/4, which is reserved (RFC 1112) and in use nowhere.
    #[must_use]
    pub const fn v4(self) -> [u8; 4] {
        self.v4_number().to_be_bytes()
    }

    /// An IPv6 address in 100::/64, the discard-only prefix (RFC 6666).
    #[must_use]
    pub const fn v6(self) -> Address {
        self.v6_halves().address()
    }

    /// The port, in host order. Never 0, because datagrams cannot be sent to port 0.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "its lowest bits")]
    pub const fn port(self) -> u16 {
        self.0 as u16 | 1
    }

    /// Whether this address and port are one of the two destinations.
    #[must_use]
    #[inline(always)]
    pub const fn is(self, address: Halves, port: u16) -> bool {
        let (v4, v6) = (Halves::from_v4(self.v4_number()), self.v6_halves());
        port == self.port()
            && self.0 != 0
            && (address.lower == v6.lower && address.upper == v6.upper
                || address.lower == v4.lower && address.upper == v4.upper)
    }

    /// The name of a Unix socket: an abstract one, which nothing is bound to.
    #[must_use]
    pub const fn name(self) -> [u8; NAME_BYTES] {
        let [a, b, c, d, e, f, g, h] = NAME_BEGIN.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.0.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether this is the name, given its length in bytes.
    #[must_use]
    #[inline(always)]
    pub const fn is_name(self, name: &Name, length: u32) -> bool {
        length as usize == NAME_BYTES && self.0 != 0 && name[0] == NAME_BEGIN && name[1] == self.0
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bits in its middle")]
    const fn v4_number(self) -> u32 {
        (self.0 >> 16) as u32 | 0xf000_0000
    }

    #[inline(always)]
    const fn v6_halves(self) -> Halves {
        Halves {
            upper: 0x100 << 48,
            lower: self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::from_v4;

    const TOKEN: Token = Token(0x0123_4567_89ab_cdee);

    #[test]
    fn the_destinations_are_of_reserved_blocks() {
        assert_eq!(TOKEN.v4(), [0xf5, 0x67, 0x89, 0xab]);
        let v6 = [
            1, 0, 0, 0, 0, 0, 0, 0, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xee,
        ];
        assert_eq!(TOKEN.v6(), v6);
        assert_eq!(TOKEN.port(), 0xcdef);
    }

    #[test]
    fn it_is_these_two_and_no_other() {
        let is = |address, port| TOKEN.is(Halves::of(address), port);
        let (v4, v6, port) = (from_v4(TOKEN.v4()), TOKEN.v6(), TOKEN.port());
        assert!(is(v4, port) && is(v6, port));
        assert!(!is(v4, port - 1) && !is(v6, port - 1));
        for bit in 0..128 {
            let other = |address| (u128::from_be_bytes(address) ^ 1 << bit).to_be_bytes();
            assert!(!is(other(v4), port), "{bit}");
            assert!(!is(other(v6), port), "{bit}");
        }
    }

    #[test]
    fn a_name_is_this_one_and_no_other() {
        let mut name = [0; crate::unix::WORDS];
        for (word, bytes) in name.iter_mut().zip(TOKEN.name().chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        assert_eq!(TOKEN.name()[0], 0);
        assert!(TOKEN.is_name(&name, 16));
        assert!(!TOKEN.is_name(&name, 17));
        assert!(!Token(TOKEN.0 + 1).is_name(&name, 16));
        name[1] = 0;
        assert!(!Token(0).is_name(&name, 16));
    }

    #[test]
    fn without_a_token_there_are_none() {
        let none = Token(0);
        assert!(!none.is(Halves::of(from_v4(none.v4())), none.port()));
        assert!(!none.is(Halves::of(none.v6()), none.port()));
    }
}
