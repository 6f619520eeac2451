//! Reads the EDNS record of a query.

use domain::base::{Message, Rtype, opt::Opt};

/// The EDNS record of a query (RFC 6891).
pub(super) enum Options {
    /// There is none.
    None,
    /// There is more than one, or it cannot be read.
    Malformed,
    /// The longest answer by UDP that the client takes, and the version.
    One { longest: u16, version: u8 },
}

/// Looks for the record in the additional section.
pub(super) fn read(message: &Message<[u8]>) -> Options {
    let Ok(additional) = message.additional() else {
        return Options::Malformed;
    };
    let mut found = Options::None;
    for record in additional {
        let Ok(record) = record else {
            return Options::Malformed;
        };
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let is_second = matches!(found, Options::One { .. });
        if is_second || !matches!(record.to_record::<Opt<_>>(), Ok(Some(_))) {
            return Options::Malformed;
        }
        // The version is the second byte of the field that has the time to live in other records (RFC 6891, 6.1.3).
        let [_, version, ..] = record.ttl().as_secs().to_be_bytes();
        found = Options::One {
            longest: record.class().to_int(),
            version,
        };
    }
    found
}
