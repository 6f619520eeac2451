//! Takes any bytes as a frame of a guest. A second reader, written with byte offsets, finds the same addresses, the same
//! ARP message and the same payload. Control messages are what their RFCs say. An answer to the frame is a packet with
//! right checksums, from its destination to its source, and is no longer than a refusal needs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qfence_common::{
    Halves, Protocol,
    frame::{
        answer::{Layout, PROHIBITED, Quoted, reset_v4, reset_v6, unreachable_v4, unreachable_v6},
        arp::{Arp, WORDS},
        control::{self, Control},
        ethernet::{HEADER, Macs, is_group, mac_bytes, mac_number},
    },
    packet::{Bytes, MAX_EXTENSIONS, Packet, Place, locate, parse},
};

/// The packet in a frame, of which nothing is in one piece.
struct Frame<'a>(&'a [u8]);

impl Bytes for Frame<'_> {
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = usize::try_from(HEADER.checked_add(offset)?).ok()?;
        words(self.0.get(start..)?)
    }

    fn linear<const N: usize>(&self) -> Option<&[u32; N]> {
        None
    }
}

/// The first words of some bytes.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let (words, _) = bytes.as_chunks();
    Some(words.first_chunk::<N>()?.map(u32::from_be_bytes))
}

/// The bytes of some words.
fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// An answer directly behind its IP header, whose checksum is complete.
const WHOLE: Layout = Layout {
    room: 0,
    is_partial: false,
};

/// The most bytes that an ICMP error quotes.
const MOST_QUOTED: usize = 127;

/// The bytes of an answer, with what it quotes.
fn whole<const H: usize, const N: usize>(
    (ip, rest): ([u32; H], [u32; N]),
    quoted: &[u8],
) -> Vec<u8> {
    [bytes(&ip), bytes(&rest), quoted.to_vec()].concat()
}

/// What an ICMP error quotes of a packet.
fn quote(quoted: &[u8]) -> Quoted {
    let words = quoted.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from(u32::from_be_bytes(word))
    });
    Quoted {
        length: u32::try_from(quoted.len()).unwrap_or(u32::MAX),
        sum: words.sum(),
    }
}

/// Where a payload is, found by bytes: the offset, the protocol, whether the packet is a fragment, and whether it is one
/// after the first.
fn find(packet: &[u8]) -> Option<(usize, u8, bool, bool)> {
    packet.get(..12)?;
    if packet[0] >> 4 == 4 {
        let length = usize::from(packet[0] & 15) * 4;
        let fragment = u16::from_be_bytes([packet[6], packet[7]]);
        let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff != 0);
        return (length >= 20).then_some((length, packet[9], more || offset, offset));
    }
    if packet[0] >> 4 != 6 {
        return None;
    }
    let (mut at, mut number, mut is_fragment) = (40, packet[6], false);
    let mut extensions = 0;
    while matches!(number, 0 | 43 | 44 | 51 | 60) {
        extensions += 1;
        let header = packet.get(at..at + 4)?;
        if number == 44 {
            is_fragment = true;
            if u16::from_be_bytes([header[2], header[3]]) >> 3 != 0 {
                return Some((at, header[0], true, true));
            }
        }
        if extensions > MAX_EXTENSIONS {
            return None;
        }
        at += match number {
            44 => 8,
            51 => 4 * (usize::from(header[1]) + 2),
            _ => 8 * (usize::from(header[1]) + 1),
        };
        number = header[0];
    }
    Some((at, number, is_fragment, false))
}

/// The sum of RFC 1071 of some bytes, by halves of words; all ones if a checksum among them is right.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    u16::try_from(sum).unwrap_or(0)
}

/// Checks an answer to a packet, and its checksums.
fn check_answer(packet: &[u8], answer: &[u8], protocol: u8) {
    let (addresses, asked, at) = if packet[0] >> 4 == 4 {
        assert_eq!(
            answer[..4],
            [0x45, 0, 0, u8::try_from(answer.len()).unwrap_or(0)]
        );
        assert_eq!(answer[9], protocol);
        assert_eq!(sum(&[&answer[..20]]), 0xffff);
        (&answer[12..20], &packet[12..20], 20)
    } else {
        assert_eq!(usize::from(answer[5]), answer.len() - 40);
        assert_eq!(answer[6], protocol);
        (&answer[8..40], &packet[8..40], 40)
    };
    let half = addresses.len() / 2;
    assert_eq!(addresses[..half], asked[half..]);
    assert_eq!(addresses[half..], asked[..half]);
    let length = u8::try_from(answer.len() - at).unwrap_or(0);
    let pseudo = [0, protocol, 0, length];
    let sum = match protocol {
        1 => sum(&[&answer[at..]]),
        _ => sum(&[&answer[at..], addresses, &pseudo]),
    };
    assert_eq!(sum, 0xffff);
}

fn check_answers(frame: &Frame<'_>, packet: &[u8], place: Place) {
    let is_v6 = packet[0] >> 4 == 6;
    let at = place.offset();
    if place.number() == Protocol::TCP.0 {
        let (Some(header), Some(segment)) = (frame.words(0), frame.words(at)) else {
            return;
        };
        let reset = if is_v6 {
            let Some(header) = frame.words(0) else {
                return;
            };
            whole(reset_v6(&header, &segment, at, WHOLE), &[])
        } else {
            whole(reset_v4(&header, &segment, WHOLE), &[])
        };
        check_answer(packet, &reset, 6);
        let reset = &reset[reset.len() - 20..];
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        assert_eq!(reset[..2], packet[start + 2..start + 4]);
        assert_eq!(reset[2..4], packet[start..start + 2]);
        let accepts = packet[start + 13] & 0x10 != 0;
        assert_eq!(reset[13], if accepts { 0x04 } else { 0x14 });
        if accepts {
            assert_eq!(reset[4..8], packet[start + 8..start + 12]);
        }
        return;
    }
    let end = usize::try_from(at).unwrap_or(usize::MAX).saturating_add(8);
    let Some(quoted) = packet.get(..end).filter(|_| end <= MOST_QUOTED) else {
        return;
    };
    let (answer, protocol) = if is_v6 {
        let Some(header) = frame.words(0) else {
            return;
        };
        let error = unreachable_v6(&header, quote(quoted), PROHIBITED, WHOLE);
        (whole(error, quoted), 58)
    } else {
        let Some(header) = frame.words(0) else {
            return;
        };
        let error = unreachable_v4(&header, quote(quoted), PROHIBITED, WHOLE);
        (whole(error, quoted), 1)
    };
    check_answer(packet, &answer, protocol);
}

fn check_control(parsed: &Packet, packet: &[u8], place: Place) {
    let at = usize::try_from(place.offset()).unwrap_or(usize::MAX);
    let kind = packet.get(at).copied().unwrap_or(0);
    if place.is_later_fragment() || place.number() != Protocol::ICMPV6.0 {
        return;
    }
    let control = control::of_icmp_v6(u32::from(kind), place, parsed.destination);
    let is_group = parsed.destination.address()[0] == 0xff;
    match control {
        Control::Ordinary => assert!(!matches!(kind, 134 | 137)),
        Control::OfRouters => assert!(matches!(kind, 134 | 137)),
        Control::Membership => assert!(is_group && matches!(kind, 130..=132 | 143)),
        Control::RouterSolicitation
        | Control::NeighbourSolicitation
        | Control::NeighbourAdvertisement => {
            assert!(matches!(kind, 133 | 135 | 136));
            if packet[0] >> 4 == 6 {
                assert_eq!((packet[6], packet[7], at), (58, 255, 40));
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(first) = words(input) else {
        return;
    };
    let macs = Macs::of_words(first);
    assert_eq!(mac_bytes(macs.to), input[..6]);
    assert_eq!(mac_bytes(macs.from), input[6..12]);
    assert_eq!(mac_number(mac_bytes(macs.from)), macs.from);
    assert_eq!(is_group(macs.from), input[6] & 1 != 0);
    assert_eq!(bytes(&macs.answer()), [&input[6..12], &input[..6]].concat());

    let frame = Frame(input);
    let packet = input.get(14..).unwrap_or_default();
    if let Some(arp) = frame.words::<WORDS>(0).and_then(Arp::read) {
        assert_eq!(packet[..7], [0, 1, 8, 0, 6, 4, 0]);
        assert_eq!(packet[7], if arp.is_request { 1 } else { 2 });
        assert_eq!(mac_bytes(arp.sender_mac), packet[8..14]);
        assert_eq!(arp.sender.to_be_bytes(), packet[14..18]);
        assert_eq!(arp.target.to_be_bytes(), packet[24..28]);
    }

    let place = locate(&frame);
    assert_eq!(Place::from_bits(place.bits()), place);
    let found = find(packet);
    assert_eq!(place.is_known(), found.is_some());
    if let Some((at, number, is_fragment, is_later)) = found {
        assert_eq!(usize::try_from(place.offset()), Ok(at));
        assert_eq!(place.number(), u32::from(number));
        assert_eq!(place.is_fragment(), is_fragment);
        assert_eq!(place.is_later_fragment(), is_later);
    }
    let Some(parsed) = parse(&frame) else {
        return;
    };
    // What is parsed has a place, and is of the same protocol.
    assert!(place.is_known());
    assert_eq!(parsed.payload.protocol().0, place.number());
    assert_eq!(
        control::is_multicast(parsed.destination),
        match parsed.destination.address() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, first, ..] => first >> 4 == 0xe,
            [first, ..] => first == 0xff,
        }
    );
    assert_eq!(Halves::of(parsed.source.address()), parsed.source);
    check_control(&parsed, packet, place);
    if !place.is_later_fragment() {
        check_answers(&frame, packet, place);
    }
});
