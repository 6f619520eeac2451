//! Local ports that may be bound, as bits of an array.

use crate::Protocol;

/// The number of words of 64 bits: one bit a port, for TCP and for UDP.
pub const WORDS: u32 = 2 * PER_PROTOCOL;

/// The number of words of one protocol.
const PER_PROTOCOL: u32 = (1 << 16) / 64;

/// The index of the word with the bit of a port; `None` for other protocols than TCP, MPTCP and UDP, whose ports cannot be
/// allowed.
#[must_use]
#[inline(always)]
pub const fn word_index(protocol: Protocol, port: u16) -> Option<u32> {
    let first = match protocol {
        Protocol::TCP | Protocol::MPTCP => 0,
        Protocol::UDP => PER_PROTOCOL,
        _ => return None,
    };
    Some(first + port as u32 / 64)
}

/// The bit of a port in its word.
#[must_use]
#[inline(always)]
pub const fn bit(port: u16) -> u64 {
    1 << (port % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let mut expected = 0;
        for protocol in [Protocol::TCP, Protocol::UDP] {
            for port in 0..=u16::MAX {
                let index = word_index(protocol, port).unwrap();
                assert_eq!(
                    u64::from(index) * 64 + u64::from(bit(port).trailing_zeros()),
                    expected
                );
                assert!(index < WORDS);
                expected += 1;
            }
        }
        assert_eq!(
            word_index(Protocol::MPTCP, 80),
            word_index(Protocol::TCP, 80)
        );
        assert_eq!(word_index(Protocol::SCTP, 80), None);
    }
}
