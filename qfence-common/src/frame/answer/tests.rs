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

#[test]
fn a_syn_is_reset_with_an_acknowledgement() {
    let reset = reset_v4(&v4(6, 40), &segment(SYN), false);
    assert_eq!(naive(&reset[..5], 0, &[]), 0);
    assert_eq!(reset[0], 0x4500_0028);
    assert_eq!(reset[3..5], [HOST, GUEST]);
    assert_eq!(reset[5], 22 << 16 | 40000);
    assert_eq!(reset[6..8], [0, 1001]);
    assert_eq!(reset[8], 5 << 28 | RST | ACK);
    assert_eq!(naive(&reset, 5, &[HOST, GUEST, 6, 20]), 0);
    // A byte more of the packet is a byte more of the segment, and so is the end of the connection.
    assert_eq!(reset_v4(&v4(6, 41), &segment(SYN), false)[7], 1002);
    assert_eq!(reset_v4(&v4(6, 41), &segment(FIN), false)[7], 1002);
}

#[test]
fn a_segment_of_a_connection_is_reset_where_it_is_acknowledged() {
    for flags in [ACK, ACK | FIN, ACK | SYN] {
        let reset = reset_v6(&v6(6, 520), &segment(flags), 40, false);
        assert_eq!(reset[11..13], [7000, 0]);
        assert_eq!(reset[13], 5 << 28 | RST);
        let addresses = &reset[2..10];
        let pseudo: Vec<u32> = addresses.iter().copied().chain([6, 20]).collect();
        assert_eq!(naive(&reset, 10, &pseudo), 0);
        let header = v6(6, 520);
        assert_eq!(reset[2..6], header[6..10]);
        assert_eq!(reset[6..10], header[2..6]);
        assert_eq!(reset[1], 20 << 16 | 6 << 8 | 64);
    }
}

#[test]
fn behind_extension_headers_the_length_of_a_segment_is_what_is_left() {
    // 8 bytes of options before a segment of 20 bytes.
    let reset = reset_v6(&v6(60, 28), &segment(SYN), 48, false);
    assert_eq!(reset[12], 1001);
}

#[test]
fn a_checksum_that_a_device_writes_begins_as_that_of_the_pseudo_header() {
    let header = v4(6, 40);
    let reset = reset_v4(&header, &segment(SYN), true);
    // What the device does: it sums what is there, and writes the complement.
    let sum = !naive(&reset, 5, &[]);
    let mut finished = reset;
    finished[9] = u32::from(!sum) << 16;
    assert_eq!(naive(&finished, 5, &[HOST, GUEST, 6, 20]), 0);
}

#[test]
fn an_icmp_error_quotes_the_packet() {
    let (header, begins) = (v4(17, 28), [PORTS, 8 << 16 | 0x1234]);
    for (code, number) in [(PROHIBITED, 13), (PORT, 3)] {
        let error = unreachable_v4(&header, &begins, code);
        assert_eq!(error[0], 0x4500_0000 | 56);
        assert_eq!(naive(&error[..5], 0, &[]), 0);
        assert_eq!(error[2] >> 16, 64 << 8 | 1);
        assert_eq!(error[3..5], [HOST, GUEST]);
        assert_eq!(error[5] >> 16, 3 << 8 | number);
        assert_eq!(error[7..12], header);
        assert_eq!(error[12..], begins);
        assert_eq!(naive(&error, 5, &[]), 0);
        // A device may write any zero to the lower half of the field without a use.
        let mut finished = error;
        finished[6] = 0xffff;
        assert_eq!(naive(&finished, 5, &[]), 0);
    }
}

#[test]
fn an_icmp_v6_error_quotes_the_packet() {
    let (header, begins) = (v6(17, 8), [PORTS, 8 << 16 | 0x1234]);
    for (code, number) in [(PROHIBITED, 1), (PORT, 4)] {
        let error = unreachable_v6(&header, &begins, code, false);
        assert_eq!(error[1], 56 << 16 | 58 << 8 | 64);
        assert_eq!(error[2..6], header[6..10]);
        assert_eq!(error[6..10], header[2..6]);
        assert_eq!(error[10] >> 16, 1 << 8 | number);
        assert_eq!(error[12..22], header);
        assert_eq!(error[22..], begins);
        let addresses = &error[2..10];
        let pseudo: Vec<u32> = addresses.iter().copied().chain([58, 56]).collect();
        assert_eq!(naive(&error, 10, &pseudo), 0);

        let partial = unreachable_v6(&header, &begins, code, true);
        let mut finished = partial;
        // The device sums the message, without a pseudo-header, and writes the complement over the lower half.
        finished[11] = u32::from(naive(&partial, 10, &[]));
        assert_eq!(naive(&finished, 10, &pseudo), 0);
    }
}
