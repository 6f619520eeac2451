//! systemd's journal, with a journal field for each field of a line: `journalctl QFENCE_FENCE=vm1`.

use std::{io, os::unix::net::UnixDatagram};

use anyhow::{Context, Result};
use libsystemd::logging::{Priority, SD_JOURNAL_SOCK_PATH, journal_send};

use super::{Sink, fields::fields};
use crate::record::line::{Body, Line};

pub(super) struct Journald;

impl Journald {
    pub(super) fn open() -> Result<Self> {
        let probe = UnixDatagram::unbound().context("cannot make a socket")?;
        probe.connect(SD_JOURNAL_SOCK_PATH).with_context(|| {
            format!("cannot log to journald: no daemon listens at {SD_JOURNAL_SOCK_PATH}")
        })?;
        Ok(Self)
    }
}

impl Sink for Journald {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let named =
            |(name, value): (String, String)| (format!("QFENCE_{}", name.to_uppercase()), value);
        let fields = fields(line).into_iter().map(named);
        let identifier = ("SYSLOG_IDENTIFIER".to_owned(), "qfence".to_owned());
        let message = line.to_string();
        journal_send(priority(&line.body), &message, fields.chain([identifier]))
            .map_err(io::Error::other)
    }
}

/// `notice` for attempts; `warning` for attempts whose details are lost.
fn priority(body: &Body) -> Priority {
    match body {
        Body::Attempt(_) | Body::Repeats(_) | Body::Folded { .. } => Priority::Notice,
        Body::Allowed(_) | Body::Traffic(_) | Body::Lookup(_) => Priority::Info,
        Body::Open { .. } | Body::Lost | Body::Dropped { .. } => Priority::Warning,
    }
}
