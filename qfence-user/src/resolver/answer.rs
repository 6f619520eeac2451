//! Writes the answers to the fence.

use std::net::IpAddr;

use domain::{
    base::{
        MessageBuilder, Name, Serial, StaticCompressor, ToName as _, Ttl,
        iana::{Class, ExtendedErrorCode, OptRcode, Rcode},
        message_builder::PushError,
        opt::ExtendedError,
    },
    rdata::{A, Aaaa, Cname, Soa},
};

use super::question::{Frame, LONGEST};

/// The longest message by TCP.
pub(super) const BY_TCP: usize = 65_535;

/// The length of an EDNS record without options, and of an extended error without text.
const OPTIONS: usize = 11;
const ERROR: usize = 6;

/// The nameserver and the mailbox in the start of authority of negative answers.
const OURSELVES: &[u8] = b"\x06qfence\x07invalid\0";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub rcode: OptRcode,
    /// The names to which aliases lead, from the name that was asked.
    pub aliases: Vec<Name<Vec<u8>>>,
    /// The addresses of the last name.
    pub addresses: Vec<IpAddr>,
    /// The time to live, in seconds.
    pub ttl: u32,
    /// Whether clients may keep in mind that there are no addresses.
    pub is_negative: bool,
    /// An extended error (RFC 8914) and its text, for clients with EDNS.
    pub error: Option<(ExtendedErrorCode, String)>,
}

impl Default for Answer {
    /// An answer without records and without an error.
    fn default() -> Self {
        Self::of(Rcode::NOERROR)
    }
}

impl Answer {
    /// An answer without records.
    #[must_use]
    pub fn of(rcode: impl Into<OptRcode>) -> Self {
        Self {
            rcode: rcode.into(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            ttl: 0,
            is_negative: false,
            error: None,
        }
    }

    /// An answer that says for some seconds that there is no such name, or nothing of the type.
    #[must_use]
    pub fn negative(rcode: Rcode, ttl: u32) -> Self {
        Self {
            ttl,
            is_negative: true,
            ..Self::of(rcode)
        }
    }

    /// The answer with an extended error.
    #[must_use]
    pub fn because(mut self, code: ExtendedErrorCode, text: String) -> Self {
        self.error = Some((code, text));
        self
    }
}

/// Writes an answer of at most this length. If not all records fit, it is marked as truncated.
#[must_use]
pub fn write(frame: &Frame, answer: &Answer, longest: usize) -> Vec<u8> {
    compose(frame, answer, longest).unwrap_or_else(|_| {
        // Never for lengths of at least 512: a question and what is always there are shorter.
        let mut failed = MessageBuilder::new_vec();
        failed.header_mut().set_id(frame.id);
        failed.header_mut().set_qr(true);
        failed.header_mut().set_rcode(Rcode::SERVFAIL);
        failed.finish()
    })
}

fn compose(frame: &Frame, answer: &Answer, longest: usize) -> Result<Vec<u8>, PushError> {
    let target = StaticCompressor::new(Vec::with_capacity(512));
    let Ok(mut message) = MessageBuilder::from_target(target);
    let header = message.header_mut();
    header.set_id(frame.id);
    header.set_qr(true);
    header.set_opcode(frame.opcode);
    header.set_rd(frame.rd);
    header.set_cd(frame.cd);
    header.set_ra(true);
    header.set_rcode(answer.rcode.rcode());
    let error = answer
        .error
        .as_ref()
        .map_or(0, |(_, text)| ERROR + text.len());
    let options = frame.edns.map_or(0, |_| OPTIONS + error);
    // The builder takes this limit for the first length that is too long.
    message.set_push_limit((longest + 1).saturating_sub(options));
    let mut question = message.question();
    let Some(asked) = &frame.question else {
        return Ok(question.finish().into_target());
    };
    question.push((&asked.name, asked.kind, asked.class))?;
    let mut answers = question.answer();
    let mut owner = &asked.name;
    let mut is_cut = false;
    for alias in &answer.aliases {
        let record = (owner, Class::IN, answer.ttl, Cname::new(alias));
        is_cut = is_cut || answers.push(record).is_err();
        owner = alias;
    }
    for address in &answer.addresses {
        let pushed = match *address {
            IpAddr::V4(v4) => answers.push((owner, Class::IN, answer.ttl, A::new(v4))),
            IpAddr::V6(v6) => answers.push((owner, Class::IN, answer.ttl, Aaaa::new(v6))),
        };
        is_cut = is_cut || pushed.is_err();
        if is_cut {
            break;
        }
    }
    let mut authority = answers.authority();
    if answer.is_negative && !is_cut {
        // Of the zone around it, so that it says nothing about other names.
        let zone = owner.parent();
        let zone = zone.map_or_else(Name::root_vec, |zone| zone.to_vec());
        let record = (zone, Class::IN, answer.ttl, authority_of(answer.ttl));
        is_cut = authority.push(record).is_err();
    }
    authority.header_mut().set_tc(is_cut);
    let mut additional = authority.additional();
    if frame.edns.is_some() {
        additional.clear_push_limit();
        additional.opt(|options| {
            options.set_udp_payload_size(LONGEST);
            options.set_rcode(answer.rcode);
            let Some((code, text)) = &answer.error else {
                return Ok(());
            };
            match ExtendedError::<Vec<u8>>::new_with_str(*code, text) {
                Ok(error) => options.push(&error),
                Err(_too_long) => Ok(()),
            }
        })?;
    }
    Ok(additional.finish().into_target())
}

/// A start of authority that makes clients keep a negative answer for some seconds.
fn authority_of(seconds: u32) -> Soa<&'static Name<[u8]>> {
    let ourselves = Name::from_slice(OURSELVES).unwrap_or(Name::root_slice());
    let time = Ttl::from_secs;
    let (refresh, retry, expire) = (time(3600), time(600), time(86_400));
    Soa::new(
        ourselves,
        ourselves,
        Serial(1),
        refresh,
        retry,
        expire,
        time(seconds),
    )
}
