//! Reads the answer of a nameserver: only what belongs to the question.

use std::{net::IpAddr, time::Duration};

use domain::{
    base::{Message, Name, ParsedName, Rtype, ToName as _, iana::Class, iana::Rcode},
    rdata::{A, Aaaa, Cname, Soa},
};

use super::question::HEADER;

/// The most addresses of an answer. Further ones are left out.
pub const ADDRESSES: usize = 64;

/// The most aliases between the name that was asked and its addresses. A longer chain is taken for a loop.
pub const ALIASES: usize = 16;

/// The time of a negative answer without a start of authority, in seconds.
const NEGATIVE: u32 = 5;

/// The longest time of a negative answer, in seconds.
const LONGEST_NEGATIVE: u32 = 30;

/// The types of questions that nameservers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    pub(super) const fn of(kind: Rtype) -> Option<Self> {
        match kind {
            Rtype::A => Some(Self::A),
            Rtype::AAAA => Some(Self::Aaaa),
            _ => None,
        }
    }

    pub(super) const fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
        }
    }
}

/// What a nameserver found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whether there is no such name.
    pub no_name: bool,
    /// The names to which aliases lead, in wire format: first the one of the name that was asked.
    pub aliases: Vec<Name<Vec<u8>>>,
    /// The addresses, each once, in their order. Empty if there are none of this type.
    pub addresses: Vec<IpAddr>,
    /// How long all this is valid, in seconds.
    pub ttl: u32,
}

impl Found {
    /// How many bytes it takes in the cache, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        let aliases: usize = self.aliases.iter().map(|name| name.len() + 24).sum();
        size_of::<Self>() + aliases + self.addresses.len() * size_of::<IpAddr>()
    }

    /// How long the cache keeps it.
    #[must_use]
    pub const fn lasts(&self) -> Duration {
        Duration::from_secs(self.ttl as u64)
    }
}

/// Why a message is no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not the answer to this question. Another message may still be.
    NotOurs,
    /// It is cut off. The whole is to be had by TCP.
    Truncated,
    /// The nameserver cannot answer: the response code, or `None` if the answer is malformed.
    Failed(Option<Rcode>),
}

/// Reads the answer to a question. `question` is the bytes of the question section of the query.
///
/// # Errors
/// If it is not the answer, or not usable.
pub fn read(bytes: &[u8], id: u16, question: &[u8], kind: Kind) -> Result<Found, Unusable> {
    let message = Message::from_slice(bytes).map_err(|_| Unusable::NotOurs)?;
    let header = message.header();
    let is_ours = header.id() == id && header.qr();
    if !is_ours || !repeats(bytes, question, header.rcode()) {
        return Err(Unusable::NotOurs);
    }
    let no_name = match header.rcode() {
        Rcode::NOERROR => false,
        Rcode::NXDOMAIN => true,
        other => return Err(Unusable::Failed(Some(other))),
    };
    if header.tc() {
        return Err(Unusable::Truncated);
    }
    let failed = Unusable::Failed(None);
    let mut found = followed(message, kind).map_err(|Malformed| failed)?;
    found.no_name = no_name && found.addresses.is_empty();
    if found.addresses.is_empty() {
        found.ttl = negative(message).map_err(|Malformed| failed)?;
    }
    Ok(found)
}

/// Whether a message repeats the question. An error may leave it out.
fn repeats(bytes: &[u8], question: &[u8], rcode: Rcode) -> bool {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return false;
    };
    match header.get(4..6) {
        Some([0, 1]) => rest
            .get(..question.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(question)),
        Some([0, 0]) => rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN,
        _ => false,
    }
}

struct Malformed;

/// The aliases that lead from the name that was asked, and the addresses at their end. Records of other owners are left out.
fn followed(message: &Message<[u8]>, kind: Kind) -> Result<Found, Malformed> {
    let asked = message.first_question().ok_or(Malformed)?;
    let mut aliases: Vec<(ParsedName<_>, ParsedName<_>, u32)> = Vec::new();
    let mut addresses: Vec<(ParsedName<_>, IpAddr, u32)> = Vec::new();
    for record in message.answer().map_err(|_| Malformed)? {
        let record = record.map_err(|_| Malformed)?;
        if record.class() != Class::IN {
            continue;
        }
        let (owner, ttl) = (record.owner(), seconds(record.ttl().as_secs()));
        let data = match record.rtype() {
            Rtype::CNAME => {
                let alias = record.to_record::<Cname<_>>().map_err(|_| Malformed)?;
                aliases.extend(alias.map(|alias| (owner, *alias.data().cname(), ttl)));
                continue;
            }
            Rtype::A if kind == Kind::A => record
                .to_record::<A>()
                .map(|found| found.map(|found| found.data().addr().into())),
            Rtype::AAAA if kind == Kind::Aaaa => record
                .to_record::<Aaaa>()
                .map(|found| found.map(|found| found.data().addr().into())),
            _ => continue,
        };
        let data: Option<IpAddr> = data.map_err(|_| Malformed)?;
        addresses.extend(data.map(|address| (owner, address, ttl)));
    }
    let mut found = Found {
        no_name: false,
        aliases: Vec::new(),
        addresses: Vec::new(),
        ttl: u32::MAX,
    };
    let mut owner = *asked.qname();
    while let Some((_, target, ttl)) = aliases.iter().find(|(from, ..)| *from == owner) {
        if found.aliases.len() == ALIASES {
            return Err(Malformed);
        }
        found.aliases.push(target.to_name());
        found.ttl = found.ttl.min(*ttl);
        owner = *target;
    }
    for (from, address, ttl) in addresses {
        let is_new = !found.addresses.contains(&address);
        if from == owner && is_new && found.addresses.len() < ADDRESSES {
            found.addresses.push(address);
            found.ttl = found.ttl.min(ttl);
        }
    }
    Ok(found)
}

/// A time to live. The highest bit is not set in valid ones (RFC 2181, 8).
const fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// How long a negative answer is valid (RFC 2308, 5).
fn negative(message: &Message<[u8]>) -> Result<u32, Malformed> {
    for record in message.authority().map_err(|_| Malformed)? {
        let record = record.map_err(|_| Malformed)?;
        if record.rtype() != Rtype::SOA {
            continue;
        }
        if let Some(soa) = record.to_record::<Soa<_>>().map_err(|_| Malformed)? {
            let minimum = seconds(soa.data().minimum().as_secs());
            let ttl = seconds(record.ttl().as_secs());
            return Ok(minimum.min(ttl).min(LONGEST_NEGATIVE));
        }
    }
    Ok(NEGATIVE)
}
