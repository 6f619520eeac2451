//! The DNS messages of RFC 7050: a query for the IPv6 addresses of `ipv4only.arpa`, and the response.

use std::net::Ipv6Addr;

/// `ipv4only.arpa`, as labels.
const NAME: &[u8] = b"\x08ipv4only\x04arpa\0";

/// The type AAAA (RFC 3596, 2.1), and the class IN (RFC 1035, 3.2.4).
const AAAA: u16 = 28;
const IN: u16 = 1;

/// Flags of the header (RFC 1035, 4.1.1): recursion is desired; the message is a response.
const RECURSION: u16 = 0x0100;
const RESPONSE: u16 = 0x8000;
/// The bits of the response code, and the codes of responses that are definite.
const CODE: u16 = 0x000f;
const NO_ERROR: u16 = 0;
const NO_NAME: u16 = 3;

/// The length of the header.
const HEADER: usize = 12;

/// The longest response that is read: resolvers send no longer one without EDNS (RFC 1035, 2.3.4).
pub(super) const LONGEST: usize = 512;

/// The query, with an identifier.
pub(super) fn query(id: u16) -> Vec<u8> {
    let mut message = Vec::new();
    for field in [id, RECURSION, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    message.extend(NAME);
    message.extend(AAAA.to_be_bytes());
    message.extend(IN.to_be_bytes());
    message
}

/// The addresses in a response to the query with this identifier. `None` if it is another message, is malformed, or
/// reports a failure of the resolver.
pub(super) fn addresses(message: &[u8], id: u16) -> Option<Vec<Ipv6Addr>> {
    let field = |index: usize| number(message, 2 * index);
    let flags = field(1)?;
    let is_answer = field(0)? == id && flags & RESPONSE != 0;
    if !is_answer || ![NO_ERROR, NO_NAME].contains(&(flags & CODE)) {
        return None;
    }
    let (questions, answers) = (field(2)?, field(3)?);
    let mut at = HEADER;
    for _ in 0..questions {
        at = after_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = after_name(message, at)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        let length = usize::from(number(message, at + 8)?);
        let data = message.get(at + 10..at + 10 + length)?;
        if (kind, class) == (AAAA, IN) {
            found.push(<[u8; 16]>::try_from(data).ok()?.into());
        }
        at += 10 + length;
    }
    Some(found)
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The offset behind a name: labels up to an empty one, or up to a pointer (RFC 1035, 4.1.4).
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response with these flags, and records of a type and data; each name is a pointer to the question's.
    fn response(id: u16, flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = query(id);
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend(IN.to_be_bytes());
            message.extend([0, 0, 14, 16]);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn the_addresses_of_a_response_are_read() {
        let address: Ipv6Addr = "2001:db8:64::c000:aa".parse().unwrap();
        let data = address.octets();
        // An alias before the address.
        let alias: (u16, &[u8]) = (5, b"\x01x\xc0\x0c");
        let message = response(7, 0x8180, &[alias, (AAAA, &data)]);
        assert_eq!(addresses(&message, 7), Some(vec![address]));
        assert_eq!(addresses(&response(7, 0x8180, &[]), 7), Some(Vec::new()));
        assert_eq!(addresses(&response(7, 0x8183, &[]), 7), Some(Vec::new()));
        for end in 0..message.len() {
            assert_eq!(addresses(&message[..end], 7), None, "cut off at {end}");
        }
    }

    #[test]
    fn other_messages_and_failures_are_no_answer() {
        let data = [0; 16];
        assert_eq!(addresses(&response(8, 0x8180, &[(AAAA, &data)]), 7), None);
        assert_eq!(addresses(&query(7), 7), None, "a query");
        for code in [1, 2, 4, 5] {
            assert_eq!(addresses(&response(7, 0x8180 | code, &[]), 7), None);
        }
        let short: (u16, &[u8]) = (AAAA, &data[..15]);
        assert_eq!(addresses(&response(7, 0x8180, &[short]), 7), None);
    }
}
