//! Answers to refused packets: a reset for TCP, and an ICMP error for other protocols.
//!
//! All functions take and return packets as words, as numbers, without the Ethernet header. An answer comes from the
//! address to which the packet was sent.

/// Flags in the fourth word of a TCP header.
const FIN: u32 = 0x01 << 16;
const SYN: u32 = 0x02 << 16;
const RST: u32 = 0x04 << 16;
const ACK: u32 = 0x10 << 16;

/// Numbers of protocols.
const ICMP: u32 = 1;
const TCP: u32 = 6;
const ICMPV6: u32 = 58;

/// The time to live of an answer.
const HOPS: u32 = 64;

/// The flag against fragmenting, in the second word of an IPv4 header.
const WHOLE: u32 = 0x4000;

/// The length of a TCP header without options.
const TCP_HEADER: u32 = 20;

/// The codes of ICMP errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Of type 3 (destination unreachable) in IPv4.
    pub v4: u32,
    /// Of type 1 (destination unreachable) in IPv6.
    pub v6: u32,
}

/// An administrator prohibits it.
pub const PROHIBITED: Unreachable = Unreachable { v4: 13, v6: 1 };

/// Nothing listens at the port.
pub const PORT: Unreachable = Unreachable { v4: 3, v6: 4 };

/// Adds the words of a packet, for a checksum.
#[must_use]
#[inline(always)]
pub fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// Folds a sum to 16 bits.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "seventeen bits at most")]
pub const fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u32
}

/// Returns the checksum of a sum.
#[inline(always)]
const fn checksum(sum: u64) -> u32 {
    !fold(sum) & 0xffff
}

/// Adds the pseudo-header of a payload: the addresses, in either direction, its protocol and its length.
#[must_use]
#[inline(always)]
pub fn pseudo<const N: usize>(addresses: &[u32; N], protocol: u32, length: u32) -> u64 {
    sum(addresses) + u64::from(protocol) + u64::from(length)
}

/// Returns the header that resets the connection of a TCP segment of `length` bytes, without its checksum (RFC 9293, 3.5.2).
#[inline(always)]
fn reset(segment: [u32; 5], length: u32) -> [u32; 5] {
    let [ports, sequence, acknowledged, flags, _] = segment;
    let ports = ports.rotate_left(16);
    let header = (TCP_HEADER / 4) << 28;
    if flags & ACK != 0 {
        return [ports, acknowledged, 0, header | RST, 0];
    }
    let data = length.saturating_sub((flags >> 28) * 4);
    let flag = |bit| if flags & bit != 0 { 1 } else { 0 };
    let next = sequence
        .wrapping_add(data)
        .wrapping_add(flag(SYN))
        .wrapping_add(flag(FIN));
    [ports, 0, next, header | RST | ACK, 0]
}

/// Returns the header of an answer of `length` bytes to an IPv4 packet, for `room` bytes of options, which are [`NO_OPTIONS`].
#[inline(always)]
fn header_v4(header: &[u32; 5], protocol: u32, length: u32, room: u32) -> [u32; 5] {
    let [_, _, _, source, destination] = *header;
    let first = (0x40 + (20 + room) / 4) << 24 | (20 + room + length);
    let third = HOPS << 24 | protocol << 16;
    let options = u64::from(NO_OPTIONS) * u64::from(room / 4);
    let sum = sum(&[first, WHOLE, third, source, destination]) + options;
    [first, WHOLE, third | checksum(sum), destination, source]
}

/// Returns the header of an answer of `length` bytes to an IPv6 packet, for `room` bytes of [`no_options_v6`].
#[inline(always)]
const fn header_v6(header: &[u32; 10], protocol: u32, length: u32, room: u32) -> [u32; 10] {
    let [_, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let next = if room == 0 { protocol } else { OPTIONS_V6 };
    let second = (room + length) << 16 | next << 8 | HOPS;
    [6 << 28, second, d0, d1, d2, d3, s0, s1, s2, s3]
}

/// Four options of IPv4 that mean nothing.
pub const NO_OPTIONS: u32 = 0x0101_0101;

/// The number of the header for options of IPv6 (destination options).
const OPTIONS_V6: u32 = 60;

/// The maximum number of [`no_options_v6`] before a payload.
pub const MOST_OPTIONS_V6: u32 = 9;

/// Returns an extension header of IPv6 without a meaning, which has eight bytes, and which this protocol follows; `None` if
/// another one follows. A longer one would have more padding than Linux accepts.
#[must_use]
#[inline(always)]
pub fn no_options_v6(protocol: Option<u32>) -> [u32; 2] {
    /// An option of padding, and its length.
    const PADDING: u32 = 1 << 8 | 4;
    [protocol.unwrap_or(OPTIONS_V6) << 24 | PADDING, 0]
}

/// Where an answer has its payload, and who completes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The number of bytes between the IP header and the payload.
    pub room: u32,
    /// Whether a device writes the checksum that the guest has left to it, at the place where it was.
    pub is_partial: bool,
}

const IS_PARTIAL: u64 = 1 << 32;

impl Layout {
    /// Packs it into one word.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        let partial = if self.is_partial { IS_PARTIAL } else { 0 };
        self.room as u64 | partial
    }

    /// Unpacks a word.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of it")]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            room: bits as u32,
            is_partial: bits & IS_PARTIAL != 0,
        }
    }
}

/// Returns the IP header and the reset for a TCP segment in an IPv4 packet.
#[must_use]
#[inline(always)]
pub fn reset_v4(header: &[u32; 5], segment: &[u32; 5], layout: Layout) -> ([u32; 5], [u32; 5]) {
    let ip = header_v4(header, TCP, TCP_HEADER, layout.room);
    let length = (header[0] & 0xffff).saturating_sub((header[0] >> 24 & 0xf) * 4);
    let pseudo = pseudo(&[ip[3], ip[4]], TCP, TCP_HEADER);
    (ip, with_checksum(reset(*segment, length), pseudo, layout))
}

/// Returns the IP header and the reset for a TCP segment at an offset in an IPv6 packet.
#[must_use]
#[inline(always)]
pub fn reset_v6(
    header: &[u32; 10],
    segment: &[u32; 5],
    offset: u32,
    layout: Layout,
) -> ([u32; 10], [u32; 5]) {
    let ip = header_v6(header, TCP, TCP_HEADER, layout.room);
    let length = ((header[1] >> 16) + 40).saturating_sub(offset);
    let pseudo = pseudo_v6(&ip, TCP, TCP_HEADER);
    (ip, with_checksum(reset(*segment, length), pseudo, layout))
}

#[inline(always)]
fn pseudo_v6(header: &[u32; 10], protocol: u32, length: u32) -> u64 {
    let [_, _, a, b, c, d, e, f, g, h] = *header;
    pseudo(&[a, b, c, d, e, f, g, h], protocol, length)
}

#[inline(always)]
fn with_checksum(segment: [u32; 5], pseudo: u64, layout: Layout) -> [u32; 5] {
    let [a, b, c, d, _] = segment;
    let checksum = if layout.is_partial {
        fold(pseudo)
    } else {
        checksum(pseudo + sum(&[a, b, c, d]))
    };
    [a, b, c, d, checksum << 16]
}

/// The beginning of a refused packet, which an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The number of bytes.
    pub length: u32,
    /// The sum of the words, of which the last may end in zeros.
    pub sum: u64,
}

/// The length of the header of an ICMP error.
const ERROR: u32 = 8;

/// Returns the IP header and the header of the ICMP error for an IPv4 packet.
///
/// If a device writes the checksum of a UDP datagram, it writes that of the answer to a field without a use, and the sum
/// is right nevertheless.
#[must_use]
#[inline(always)]
pub fn unreachable_v4(
    header: &[u32; 5],
    quoted: Quoted,
    code: Unreachable,
    layout: Layout,
) -> ([u32; 5], [u32; 2]) {
    let ip = header_v4(header, ICMP, ERROR + quoted.length, layout.room);
    let kind = 3 << 24 | code.v4 << 16;
    let sum = sum(&[kind]) + quoted.sum;
    (ip, [kind | checksum(sum), 0])
}

/// Returns the IP header and the header of the ICMP error for an IPv6 packet.
///
/// If a device writes the checksum of a UDP datagram, it writes that of the answer, without a pseudo-header, to a field
/// without a use. The sum of the pseudo-header is put there before, so the result is zero.
#[must_use]
#[inline(always)]
pub fn unreachable_v6(
    header: &[u32; 10],
    quoted: Quoted,
    code: Unreachable,
    layout: Layout,
) -> ([u32; 10], [u32; 2]) {
    let length = ERROR + quoted.length;
    let ip = header_v6(header, ICMPV6, length, layout.room);
    let kind = 1 << 24 | code.v6 << 16;
    let pseudo = pseudo_v6(&ip, ICMPV6, length);
    let sum = pseudo + sum(&[kind]) + quoted.sum;
    let unused = if layout.is_partial { fold(pseudo) } else { 0 };
    (ip, [kind | checksum(sum), unused])
}

#[cfg(test)]
mod tests;
