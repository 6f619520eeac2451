//! Reads a query of the fence.

use domain::base::{
    Message, Name, Rtype,
    iana::{Class, Opcode, OptRcode, Rcode},
};

use super::edns::{self, Options};
use crate::policy::domain::DomainName;

/// The length of a header (RFC 1035, 4.1.1).
pub(super) const HEADER: usize = 12;

/// The maximum length of a name, with the length of each label and the root.
const MAX_NAME: usize = 255;

/// The maximum length of a label.
const MAX_LABEL: usize = 63;

/// The longest answer by UDP without EDNS (RFC 1035, 2.3.4).
const PLAIN: u16 = 512;

/// The longest answer by UDP with EDNS. Longer ones could be fragmented on their way to a guest.
pub(super) const LONGEST: u16 = 1232;

/// A query with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What every answer to it has.
    pub frame: Frame,
    /// The name, in lower case; `None` if it is none that a rule can have.
    pub(super) name: Option<DomainName>,
    /// The name as text, for the record: in lower case, with other characters than those of names escaped.
    pub(super) text: String,
    /// The type.
    pub(super) kind: Rtype,
}

/// What an answer repeats of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The identifier.
    pub(super) id: u16,
    /// The kind of query.
    pub(super) opcode: Opcode,
    /// Whether recursion is desired.
    pub(super) rd: bool,
    /// Whether checking is disabled.
    pub(super) cd: bool,
    /// The question, in the client's mixture of cases. `None` if it cannot be read.
    pub(super) question: Option<Asked>,
    /// The longest answer by UDP that the client takes. `None` without EDNS.
    pub(super) edns: Option<u16>,
}

impl Frame {
    /// The longest answer by UDP.
    pub(super) fn longest(&self) -> usize {
        let taken = self.edns.unwrap_or(PLAIN);
        usize::from(taken.clamp(PLAIN, LONGEST))
    }
}

/// Why a message is not answered by a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is no query: nothing is answered.
    Dropped,
    /// It is answered by an error.
    Error(Frame, OptRcode),
}

/// Reads a query.
///
/// # Errors
/// If it is no query, or one that is answered by an error.
pub fn read(bytes: &[u8]) -> Result<Question, Rejected> {
    let message = Message::from_slice(bytes).map_err(|_| Rejected::Dropped)?;
    let header = message.header();
    if header.qr() {
        return Err(Rejected::Dropped);
    }
    let mut frame = Frame {
        id: header.id(),
        opcode: header.opcode(),
        rd: header.rd(),
        cd: header.cd(),
        question: None,
        edns: None,
    };
    let malformed = |frame| Rejected::Error(frame, Rcode::FORMERR.into());
    if header.opcode() != Opcode::QUERY {
        return Err(Rejected::Error(frame, Rcode::NOTIMP.into()));
    }
    let Some((asked, text)) = Asked::read(bytes) else {
        return Err(malformed(frame));
    };
    if message.header_counts().qdcount() != 1 {
        return Err(malformed(frame));
    }
    let Asked { kind, class, .. } = asked;
    frame.question = Some(asked);
    match edns::read(message) {
        Options::None => {}
        Options::Malformed => return Err(malformed(frame)),
        Options::One { longest, version } => {
            frame.edns = Some(longest);
            if version > 0 {
                return Err(Rejected::Error(frame, OptRcode::BADVERS));
            }
        }
    }
    if class != Class::IN {
        return Err(Rejected::Error(frame, Rcode::REFUSED.into()));
    }
    Ok(Question {
        frame,
        name: DomainName::of_wire(&text).ok(),
        text,
        kind,
    })
}

/// The question section of a message with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) name: Name<Vec<u8>>,
    pub(super) kind: Rtype,
    pub(super) class: Class,
}

impl Asked {
    /// Reads the first question, and its name as text. The name has no pointer: nothing is before it that it could point to.
    fn read(message: &[u8]) -> Option<(Self, String)> {
        let mut at = HEADER;
        let mut text = String::new();
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            if length > MAX_LABEL || at + length - HEADER >= MAX_NAME {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            push_escaped(&mut text, message.get(at..at + length)?);
            at += length;
        }
        let number = |at: usize| {
            let bytes = message.get(at..at + 2)?;
            Some(u16::from_be_bytes(bytes.try_into().ok()?))
        };
        let asked = Self {
            name: Name::from_octets(message.get(HEADER..at)?.to_vec()).ok()?,
            kind: Rtype::from_int(number(at)?),
            class: Class::from_int(number(at + 2)?),
        };
        Some((asked, text))
    }
}

/// Appends a label in lower case. A byte that no name has is written `\x` and two hexadecimal digits, so that no dot in a
/// label reads as one between labels.
fn push_escaped(text: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(*byte)),
            b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query with these counts, and what follows the header.
    fn query(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        bytes.extend(rest);
        bytes
    }

    const A: &[u8] = b"\x03wWw\x07Example\x03org\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\0\0\0\0";

    #[test]
    fn a_question_is_read() {
        let question = read(&query(0x0110, [1, 0, 0, 0], A)).unwrap();
        assert_eq!(question.name.unwrap().as_str(), "www.example.org");
        assert_eq!((question.kind, question.frame.id), (Rtype::A, 0x1234));
        assert!(question.frame.rd && question.frame.cd);
        let asked = question.frame.question.as_ref().unwrap();
        assert_eq!(asked.name.as_slice(), &A[..17], "cases and all");
        assert_eq!(question.frame.longest(), 512);
        let with_options = read(&query(0, [1, 0, 0, 1], &[A, OPT].concat())).unwrap();
        assert_eq!(with_options.frame.edns, Some(4096));
        assert_eq!(with_options.frame.longest(), 1232);
    }

    #[test]
    fn names_that_no_rule_has_are_text() {
        for (name, text) in [
            (&b"\x03a.b\x03org\0"[..], "a\\x2eb.org"),
            (b"\x01*\x03org\0", "\\x2a.org"),
            (b"\x01\xff\0", "\\xff"),
            (b"\0", ""),
        ] {
            let bytes = [name, b"\0\x01\0\x01"].concat();
            let question = read(&query(0, [1, 0, 0, 0], &bytes)).unwrap();
            assert_eq!((question.name, question.text), (None, text.to_owned()));
        }
    }

    #[test]
    fn messages_that_are_no_queries_are_dropped() {
        assert_eq!(read(&[0; 11]), Err(Rejected::Dropped));
        let answer = query(0x8000, [1, 0, 0, 0], A);
        assert_eq!(read(&answer), Err(Rejected::Dropped));
    }

    fn error(bytes: &[u8]) -> OptRcode {
        match read(bytes) {
            Err(Rejected::Error(_, code)) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn malformed_queries_are_errors() {
        let formerr = OptRcode::from(Rcode::FORMERR);
        for end in HEADER..HEADER + A.len() {
            let cut = &query(0, [1, 0, 0, 0], A)[..end];
            assert_eq!(error(cut), formerr, "cut off at {end}");
        }
        let two = [A, A].concat();
        assert_eq!(error(&query(0, [2, 0, 0, 0], &two)), formerr);
        assert_eq!(error(&query(0, [0, 0, 0, 0], A)), formerr);
        let pointer = b"\xc0\x0c\0\x01\0\x01";
        assert_eq!(error(&query(0, [1, 0, 0, 0], pointer)), formerr);
        let long = [b"\x3f".repeat(64 * 4), b"\0\0\x01\0\x01".to_vec()].concat();
        assert_eq!(error(&query(0, [1, 0, 0, 0], &long)), formerr);
        let options = [A, OPT, OPT].concat();
        assert_eq!(error(&query(0, [1, 0, 0, 2], &options)), formerr);
        assert_eq!(error(&query(0, [1, 0, 0, 2], &options[..40])), formerr);
    }

    #[test]
    fn other_operations_classes_and_versions_are_errors() {
        let update = query(5 << 11, [1, 0, 0, 0], A);
        assert_eq!(error(&update), Rcode::NOTIMP.into());
        let chaos = [&A[..A.len() - 1], b"\x03"].concat();
        assert_eq!(
            error(&query(0, [1, 0, 0, 0], &chaos)),
            Rcode::REFUSED.into()
        );
        let mut version = OPT.to_vec();
        version[6] = 1;
        let bytes = query(0, [1, 0, 0, 1], &[A, &version].concat());
        assert_eq!(error(&bytes), OptRcode::BADVERS);
    }
}
