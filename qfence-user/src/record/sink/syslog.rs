//! A syslog daemon: RFC 5424, with the fields of a line as structured data.

use std::{
    collections::BTreeMap,
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use nix::unistd::gethostname;
use syslog::{Facility, Formatter5424, LogFormat, Severity};

use super::{Sink, fields::fields};
use crate::record::line::{Body, Line};

/// The name of the structured data. qfence has no enterprise number, so this is the one for documentation (RFC 5612).
const STRUCTURED_DATA: &str = "qfence@32473";

pub(super) struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
    formatter: Formatter5424,
}

impl Syslog {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let socket = connect(path).with_context(|| {
            format!(
                "cannot log to syslog: no daemon listens at {}",
                path.display()
            )
        })?;
        let hostname = gethostname().ok().and_then(|name| name.into_string().ok());
        Ok(Self {
            path: path.to_owned(),
            socket,
            formatter: Formatter5424 {
                facility: Facility::LOG_DAEMON,
                hostname,
                process: "qfence".to_owned(),
                pid: process::id(),
            },
        })
    }

    fn message(&self, line: &Line) -> io::Result<Vec<u8>> {
        let severity = match line.body {
            Body::Attempt(_) | Body::Repeats(_) | Body::Folded { .. } => Severity::LOG_NOTICE,
            Body::Allowed(_) | Body::Traffic(_) | Body::Lookup(_) => Severity::LOG_INFO,
            Body::Open { .. } | Body::Lost | Body::Dropped { .. } => Severity::LOG_WARNING,
        };
        let data = BTreeMap::from([(
            STRUCTURED_DATA.to_owned(),
            fields(line).into_iter().collect(),
        )]);
        let mut message = Vec::new();
        self.formatter
            .format(&mut message, severity, (line.v, data, line))
            .map_err(io::Error::other)?;
        Ok(message)
    }
}

impl Sink for Syslog {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let message = self.message(line)?;
        if self.socket.send(&message).is_ok() {
            return Ok(());
        }
        // The daemon may have been restarted.
        self.socket = connect(&self.path)?;
        self.socket.send(&message).map(drop)
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use qfence_common::{Hook, address::from_v4};

    use super::*;
    use crate::record::line::tests::line;

    #[test]
    fn a_daemon_gets_lines_with_their_fields_and_may_be_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(Syslog::open(&path).is_err());
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        let mut syslog = None;
        for _ in 0..2 {
            let _ = std::fs::remove_file(&path);
            let daemon = UnixDatagram::bind(&path).unwrap();
            let syslog = syslog.get_or_insert_with(|| Syslog::open(&path).unwrap());
            syslog.write(&line).unwrap();
            let mut buffer = [0; 4096];
            let length = daemon.recv(&mut buffer).unwrap();
            let message = str::from_utf8(&buffer[..length]).unwrap();
            // LOG_DAEMON and LOG_NOTICE.
            assert!(message.starts_with("<29>1 "), "{message}");
            assert!(message.contains(" qfence "), "{message}");
            assert!(message.contains("[qfence@32473 "), "{message}");
            assert!(message.contains(r#" destination="127.0.0.1""#), "{message}");
            assert!(message.ends_with(&format!("] {line}")), "{message}");
        }
    }
}
