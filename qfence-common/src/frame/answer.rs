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
#[inline(always)]
fn sum<const N: usize>(words: &[u32; N]) -> u64 {
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

/// Returns the header of an answer to an IPv4 packet.
#[inline(always)]
fn header_v4(header: &[u32; 5], protocol: u32, length: u32) -> [u32; 5] {
    let [_, _, _, source, destination] = *header;
    let first = (0x4500 << 16) | (20 + length);
    let third = HOPS << 24 | protocol << 16;
    let sum = sum(&[first, WHOLE, third, source, destination]);
    [first, WHOLE, third | checksum(sum), destination, source]
}

/// Returns the reset for a TCP segment in an IPv4 packet. `is_partial` is whether a device writes its checksum.
#[must_use]
#[inline(always)]
pub fn reset_v4(header: &[u32; 5], segment: &[u32; 5], is_partial: bool) -> [u32; 10] {
    let [a, b, c, d, e] = header_v4(header, TCP, TCP_HEADER);
    let length = (header[0] & 0xffff).saturating_sub((header[0] >> 24 & 0xf) * 4);
    let [f, g, h, i, _] = reset(*segment, length);
    let pseudo = pseudo(&[d, e], TCP, TCP_HEADER);
    let j = tcp_checksum(&[f, g, h, i], pseudo, is_partial) << 16;
    [a, b, c, d, e, f, g, h, i, j]
}

/// Returns the reset for a TCP segment at an offset in an IPv6 packet. `is_partial` is as above.
#[must_use]
#[inline(always)]
pub fn reset_v6(
    header: &[u32; 10],
    segment: &[u32; 5],
    offset: u32,
    is_partial: bool,
) -> [u32; 15] {
    let [a, b, c, d, e, f, g, h, i, j] = header_v6(header, TCP, TCP_HEADER);
    let length = ((header[1] >> 16) + 40).saturating_sub(offset);
    let [k, l, m, n, _] = reset(*segment, length);
    let pseudo = pseudo(&[c, d, e, f, g, h, i, j], TCP, TCP_HEADER);
    let o = tcp_checksum(&[k, l, m, n], pseudo, is_partial) << 16;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]
}

#[inline(always)]
fn tcp_checksum(header: &[u32; 4], pseudo: u64, is_partial: bool) -> u32 {
    if is_partial {
        fold(pseudo)
    } else {
        checksum(pseudo + sum(header))
    }
}

/// Returns the header of an answer to an IPv6 packet.
#[inline(always)]
const fn header_v6(header: &[u32; 10], protocol: u32, length: u32) -> [u32; 10] {
    let [_, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let second = length << 16 | protocol << 8 | HOPS;
    [6 << 28, second, d0, d1, d2, d3, s0, s1, s2, s3]
}

/// Returns the ICMP error for an IPv4 packet without options. `begins` is the beginning of its payload.
///
/// If a device writes the checksum of a UDP datagram, it writes that of the answer to a field without a use, and the sum
/// is right nevertheless.
#[must_use]
#[inline(always)]
pub fn unreachable_v4(header: &[u32; 5], begins: &[u32; 2], code: Unreachable) -> [u32; 14] {
    let [q0, q1, q2, q3, q4] = *header;
    let [q5, q6] = *begins;
    let kind = 3 << 24 | code.v4 << 16;
    let sum = sum(&[kind, q0, q1, q2, q3, q4, q5, q6]);
    let f = kind | checksum(sum);
    let [a, b, c, d, e] = header_v4(header, ICMP, 36);
    [a, b, c, d, e, f, 0, q0, q1, q2, q3, q4, q5, q6]
}

/// Returns the ICMP error for an IPv6 packet without extension headers. `begins` is the beginning of its payload.
///
/// `is_partial` is whether a device writes the checksum of a UDP datagram. It then writes that of the answer, without a
/// pseudo-header, to a field without a use. The sum of the pseudo-header is put there before, so the result is zero.
#[must_use]
#[inline(always)]
pub fn unreachable_v6(
    header: &[u32; 10],
    begins: &[u32; 2],
    code: Unreachable,
    is_partial: bool,
) -> [u32; 24] {
    const LENGTH: u32 = 56;
    let [q0, q1, q2, q3, q4, q5, q6, q7, q8, q9] = *header;
    let [q10, q11] = *begins;
    let kind = 1 << 24 | code.v6 << 16;
    let [a, b, c, d, e, f, g, h, i, j] = header_v6(header, ICMPV6, LENGTH);
    let pseudo = pseudo(&[c, d, e, f, g, h, i, j], ICMPV6, LENGTH);
    let sum = pseudo + sum(&[kind, q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10, q11]);
    let k = kind | checksum(sum);
    let l = if is_partial { fold(pseudo) } else { 0 };
    [
        a, b, c, d, e, f, g, h, i, j, k, l, q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10, q11,
    ]
}

#[cfg(test)]
mod tests;
