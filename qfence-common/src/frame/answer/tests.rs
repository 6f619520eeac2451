extern crate std;

use std::vec::Vec;

use super::*;

const GUEST: u32 = 0xc0a8_7a32;
const HOST: u32 = 0xc0a8_7a01;
const PORTS: u32 = 40000 << 16 | 22;

/// The checksum of some bytes as RFC 1071 has it, by sums of 16 bits; 0 if they contain a right one.
fn naive(words: &[u32], from: usize, pseudo: &[u32]) -> u16 {
    let mut sum: u32 = 0;
    for word in words[from..].iter().chain(pseudo) {
        for half in [word >> 16, word & 0xffff] {
            sum += half;
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
    }
    !u16::try_from(sum).unwrap()
}

fn v4(protocol: u32, length: u32) -> [u32; 5] {
    [
        0x4500_0000 | length,
        0,
        64 << 24 | protocol << 16,
        GUEST,
        HOST,
    ]
}

fn v6(protocol: u32, length: u32) -> [u32; 10] {
    let [guest, host] = [[0xfd00_0122, 0, 0, 0x50], [0xfd00_0122, 0, 0, 1]];
    let mut header = [0; 10];
    header[..2].copy_from_slice(&[6 << 28, length << 16 | protocol << 8 | 64]);
    header[2..6].copy_from_slice(&guest);
    header[6..].copy_from_slice(&host);
    header
}

/// A segment with these flags, and its header's length.
const fn segment(flags: u32) -> [u32; 5] {
    [PORTS, 1000, 7000, 5 << 28 | flags | 64240, 0xabcd_0000]
}

/// An answer directly behind its IP header, whose checksum is complete.
const WHOLE_AT_ONCE: Layout = Layout {
    room: 0,
    is_partial: false,
};

/// The words of an answer in one piece, with what is between the IP header and the rest.
fn joined<const H: usize, const N: usize>(
    (header, rest): ([u32; H], [u32; N]),
    between: &[u32],
) -> Vec<u32> {
    header
        .into_iter()
        .chain(between.iter().copied())
        .chain(rest)
        .collect()
}

fn pseudo_of(header: &[u32], protocol: u32, length: u32) -> Vec<u32> {
    let addresses = if header[0] >> 28 == 4 {
        &header[3..5]
    } else {
        &header[2..10]
    };
    addresses
        .iter()
        .copied()
        .chain([protocol, length])
        .collect()
}

#[test]
fn a_syn_is_reset_with_an_acknowledgement() {
    let reset = joined(reset_v4(&v4(6, 40), &segment(SYN), WHOLE_AT_ONCE), &[]);
    assert_eq!(naive(&reset[..5], 0, &[]), 0);
    assert_eq!(reset[0], 0x4500_0028);
    assert_eq!(reset[3..5], [HOST, GUEST]);
    assert_eq!(reset[5], 22 << 16 | 40000);
    assert_eq!(reset[6..8], [0, 1001]);
    assert_eq!(reset[8], 5 << 28 | RST | ACK);
    assert_eq!(naive(&reset, 5, &[HOST, GUEST, 6, 20]), 0);
    // A byte more of the packet is a byte more of the segment, and so is the end of the connection.
    for flag in [SYN, FIN] {
        let (_, reset) = reset_v4(&v4(6, 41), &segment(flag), WHOLE_AT_ONCE);
        assert_eq!(reset[2], 1002);
    }
}

#[test]
fn a_segment_of_a_connection_is_reset_where_it_is_acknowledged() {
    for flags in [ACK, ACK | FIN, ACK | SYN] {
        let reset = reset_v6(&v6(6, 520), &segment(flags), 40, WHOLE_AT_ONCE);
        let reset = joined(reset, &[]);
        assert_eq!(reset[11..13], [7000, 0]);
        assert_eq!(reset[13], 5 << 28 | RST);
        assert_eq!(naive(&reset, 10, &pseudo_of(&reset, 6, 20)), 0);
        let header = v6(6, 520);
        assert_eq!(reset[2..6], header[6..10]);
        assert_eq!(reset[6..10], header[2..6]);
        assert_eq!(reset[1], 20 << 16 | 6 << 8 | 64);
    }
}

#[test]
fn behind_extension_headers_the_length_of_a_segment_is_what_is_left() {
    // 8 bytes of options before a segment of 20 bytes.
    let (_, reset) = reset_v6(&v6(60, 28), &segment(SYN), 48, WHOLE_AT_ONCE);
    assert_eq!(reset[2], 1001);
}

/// What a device does: it sums what is behind the IP header and the room, and writes the complement.
fn finish(answer: &mut [u32], payload: usize, word: usize, is_upper: bool) {
    let sum = u32::from(naive(answer, payload, &[]));
    let place = &mut answer[payload + word];
    *place = if is_upper {
        *place & 0xffff | sum << 16
    } else {
        *place & 0xffff_0000 | sum
    };
}

#[test]
fn a_checksum_that_a_device_writes_begins_as_that_of_the_pseudo_header() {
    for options in [0, 1, 10] {
        let layout = Layout {
            room: 4 * options,
            is_partial: true,
        };
        let between = std::vec![NO_OPTIONS; usize::try_from(options).unwrap()];
        let mut reset = joined(reset_v4(&v4(6, 40), &segment(SYN), layout), &between);
        let payload = 5 + between.len();
        assert_eq!(reset[0], (0x45 + options) << 24 | (40 + 4 * options));
        assert_eq!(naive(&reset[..payload], 0, &[]), 0);
        finish(&mut reset, payload, 4, true);
        assert_eq!(naive(&reset, payload, &[HOST, GUEST, 6, 20]), 0);

        let layout = Layout {
            room: 8 * options,
            is_partial: true,
        };
        let between = std::vec![0; 2 * usize::try_from(options).unwrap()];
        let reset = reset_v6(&v6(6, 20), &segment(SYN), 40, layout);
        let mut reset = joined(reset, &between);
        let payload = 10 + between.len();
        let next = if options == 0 { 6 } else { 60 };
        assert_eq!(reset[1], (20 + 8 * options) << 16 | next << 8 | 64);
        finish(&mut reset, payload, 4, true);
        let pseudo = pseudo_of(&reset, 6, 20);
        assert_eq!(naive(&reset, payload, &pseudo), 0);
    }
}

#[test]
fn options_without_a_meaning_have_eight_bytes() {
    // Destination options with an option of padding of six bytes.
    assert_eq!(no_options_v6(Some(6)), [0x0600_0104, 0]);
    assert_eq!(no_options_v6(None), [0x3c00_0104, 0]);
}

fn quoted(packet: &[u32]) -> Quoted {
    Quoted {
        length: u32::try_from(4 * packet.len()).unwrap(),
        sum: packet.iter().map(|word| u64::from(*word)).sum(),
    }
}

#[test]
fn an_icmp_error_quotes_the_packet() {
    let packet = [
        0x4600_0020,
        0,
        64 << 24 | 17 << 16,
        GUEST,
        HOST,
        NO_OPTIONS,
        PORTS,
        8 << 16 | 0x1234,
    ];
    let header: &[u32; 5] = packet.first_chunk().unwrap();
    for (code, number) in [(PROHIBITED, 13), (PORT, 3)] {
        for is_partial in [false, true] {
            let room = if is_partial { 4 } else { 0 };
            let layout = Layout { room, is_partial };
            let error = unreachable_v4(header, quoted(&packet), code, layout);
            let between = &packet[5..5 + usize::from(is_partial)];
            let mut error = joined(error, between);
            error.extend(packet);
            let payload = 5 + between.len();
            assert_eq!(
                error[0],
                (0x4500_0000 + ((room / 4) << 24)) | (20 + room + 40)
            );
            assert_eq!(naive(&error[..payload], 0, &[]), 0);
            assert_eq!(error[2] >> 16, 64 << 8 | 1);
            assert_eq!(error[3..5], [HOST, GUEST]);
            assert_eq!(error[payload] >> 16, 3 << 8 | number);
            assert_eq!(naive(&error, payload, &[]), 0);
            // A device may write any zero to the lower half of the field without a use.
            error[payload + 1] = 0xffff;
            assert_eq!(naive(&error, payload, &[]), 0);
        }
    }
}

#[test]
fn an_icmp_v6_error_quotes_the_packet() {
    let header = v6(17, 8);
    let packet = [&header[..], &[PORTS, 8 << 16 | 0x1234]].concat();
    let quoted = quoted(&packet);
    for (code, number) in [(PROHIBITED, 1), (PORT, 4)] {
        let error = unreachable_v6(&header, quoted, code, WHOLE_AT_ONCE);
        let mut error = joined(error, &[]);
        error.extend(&packet);
        assert_eq!(error[1], 56 << 16 | 58 << 8 | 64);
        assert_eq!(error[2..6], header[6..10]);
        assert_eq!(error[6..10], header[2..6]);
        assert_eq!(error[10] >> 16, 1 << 8 | number);
        let pseudo = pseudo_of(&error, 58, 56);
        assert_eq!(naive(&error, 10, &pseudo), 0);

        let layout = Layout {
            room: 0,
            is_partial: true,
        };
        let error = unreachable_v6(&header, quoted, code, layout);
        let mut error = joined(error, &[]);
        error.extend(&packet);
        // The device sums the message, without a pseudo-header, and writes the complement over the lower half.
        finish(&mut error, 10, 1, false);
        assert_eq!(naive(&error, 10, &pseudo), 0);
    }
}
