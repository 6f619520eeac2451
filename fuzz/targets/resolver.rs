//! Takes any bytes as a query of a fence, and as the answer of a nameserver. What is read of an answer is bounded. What is
//! written to the fence fits and repeats the question, and a whole answer is read back as what the nameserver said.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qfence_user::resolver::{
    answer::{Answer, write},
    found::{self, ADDRESSES, ALIASES, Found, Kind},
    question::{self, Frame, Rejected},
};

/// The length of a header, and of the type and class of a question.
const HEADER: usize = 12;
const TYPE_AND_CLASS: usize = 4;

/// The longest answers by UDP without EDNS, and by TCP.
const LIMITS: [usize; 2] = [512, 65_535];

/// The bit of the third byte that says that a message is cut off.
const CUT: u8 = 0x02;

/// The question section of a message, if its name has no pointer.
fn asked(message: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => return message.get(HEADER..at + 1 + TYPE_AND_CLASS),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// Writes an answer to a query, and checks what no answer may lack. Returns the longest.
fn written(query: &[u8], frame: &Frame, answer: &Answer) -> Vec<u8> {
    let [short, long] = LIMITS.map(|longest| {
        let message = write(frame, answer, longest);
        assert!((HEADER..=longest).contains(&message.len()));
        assert_eq!(message[..2], query[..2], "the identifier");
        assert_ne!(message[2] & 0x80, 0, "it is an answer");
        message
    });
    assert!(short.len() <= long.len());
    long
}

/// What a nameserver said, as an answer to the fence.
fn answer(found: &Found) -> Answer {
    Answer {
        aliases: found.aliases.clone(),
        addresses: found.addresses.clone(),
        ttl: found.ttl,
        ..Answer::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    match question::read(bytes) {
        Err(Rejected::Dropped) => {}
        Err(Rejected::Error(frame, code)) => {
            written(bytes, &frame, &Answer::of(code));
        }
        Ok(question) => {
            let answer = written(bytes, &question.frame, &Answer::default());
            assert_eq!(asked(&answer), asked(bytes));
        }
    }
    // As the answer to the question that it has.
    let Some(question) = asked(bytes) else {
        return;
    };
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    for kind in [Kind::A, Kind::Aaaa] {
        let Ok(found) = found::read(bytes, id, question, kind) else {
            continue;
        };
        assert!(found.addresses.len() <= ADDRESSES && found.aliases.len() <= ALIASES);
        assert!(found::read(bytes, id ^ 1, question, kind).is_err());
        // The query to this answer: without the records.
        let mut query = bytes[..HEADER + question.len()].to_vec();
        query[2] &= 0x01;
        query[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let Ok(read) = question::read(&query) else {
            continue;
        };
        let whole = written(&query, &read.frame, &answer(&found));
        assert_eq!(whole[2] & CUT, 0, "all fits by TCP");
        let again = found::read(&whole, id, question, kind);
        let again = again.map(|again| (again.addresses, again.aliases));
        assert_eq!(again.ok(), Some((found.addresses, found.aliases)));
    }
});
