//! Writes the queries to nameservers. Of the fence's query, only the name in lower case and the type are passed on.

use domain::base::{
    MessageBuilder, Name, StaticCompressor,
    iana::Class,
    message_builder::{AdditionalBuilder, PushError, QuestionBuilder},
};

use crate::{
    base::random,
    resolver::{
        cache::Key,
        found::{self, Found, Unusable},
        question::{HEADER, LONGEST},
    },
};

/// A query, and what its answer must repeat.
pub(super) struct Query {
    id: u16,
    /// The end of the question in the message.
    end: usize,
    key: Key,
    pub(super) bytes: Vec<u8>,
}

impl Query {
    /// Writes a query with a new identifier. `None` if the name is none, which a [`crate::policy::domain::DomainName`]
    /// never is.
    pub(super) fn new(key: &Key, with_options: bool) -> Option<Self> {
        let [low, high, ..] = random::number().to_le_bytes();
        let id = u16::from_le_bytes([low, high]);
        let name = Name::vec_from_str(key.0.as_str()).ok()?;
        let (end, bytes) = write(id, &name, key, with_options).ok()?;
        let key = key.clone();
        Some(Self {
            id,
            end,
            key,
            bytes,
        })
    }

    /// Reads an answer to it.
    pub(super) fn answered(&self, bytes: &[u8]) -> Result<Found, Unusable> {
        let question = self.bytes.get(HEADER..self.end).unwrap_or_default();
        found::read(bytes, self.id, question, self.key.1)
    }
}

fn write(
    id: u16,
    name: &Name<Vec<u8>>,
    key: &Key,
    with_options: bool,
) -> Result<(usize, Vec<u8>), PushError> {
    let Ok(mut message) = MessageBuilder::from_target(StaticCompressor::new(Vec::new()));
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    let mut question: QuestionBuilder<_> = message.question();
    question.push((name, key.1.rtype(), Class::IN))?;
    let end = question.as_slice().len();
    let mut additional: AdditionalBuilder<_> = question.additional();
    if with_options {
        additional.opt(|options| {
            options.set_udp_payload_size(LONGEST);
            Ok(())
        })?;
    }
    Ok((end, additional.finish().into_target()))
}
