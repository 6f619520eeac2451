//! Where lines go beside the fence's own record, as `--log` says.

use std::{fmt, path::PathBuf, str::FromStr};

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What kind of a place it is.
    pub place: Place,
    /// How a line is written, where both are possible and one was chosen.
    pub format: Option<Format>,
}

/// A place that lines are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard error.
    Stderr,
    /// Nowhere.
    None,
    /// The end of a file.
    File(PathBuf),
    /// systemd's journal.
    Journald,
    /// A syslog daemon at a socket.
    Syslog(PathBuf),
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line that reads
    Text,
    /// One JSON object a line
    Json,
}

/// Where a syslog daemon listens.
const DEV_LOG: &str = "/dev/log";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, place) = match text.split_once(':') {
            Some(("text", place)) => (Some(Format::Text), place),
            Some(("json", place)) => (Some(Format::Json), place),
            _ => (None, text),
        };
        let place = match place {
            "" => return Err("give a path, stderr, journald, syslog or none".into()),
            "stderr" => Place::Stderr,
            "none" | "journald" | "syslog" if format.is_some() => {
                return Err(format!(
                    "{place} has no format; for a file of that name give a path, ./{place}"
                ));
            }
            "none" => Place::None,
            "journald" => Place::Journald,
            "syslog" => Place::Syslog(DEV_LOG.into()),
            path => match path.strip_prefix("syslog:") {
                Some("") => return Err("give the path of a socket after syslog:".into()),
                Some(socket) => Place::Syslog(socket.into()),
                None => Place::File(path.into()),
            },
        };
        Ok(Self { place, format })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Stderr => f.write_str("stderr"),
            Place::None => f.write_str("none"),
            Place::File(path) => path.display().fmt(f),
            Place::Journald => f.write_str("journald"),
            Place::Syslog(socket) => write!(f, "syslog:{}", socket.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn targets_are_what_they_say() {
        let file = |path: &str| Place::File(path.into());
        for (text, format, place) in [
            ("stderr", None, Place::Stderr),
            ("text:stderr", Some(Format::Text), Place::Stderr),
            (
                "json:/var/log/x.json",
                Some(Format::Json),
                file("/var/log/x.json"),
            ),
            ("/var/log/x", None, file("/var/log/x")),
            ("a:b", None, file("a:b")),
            ("none", None, Place::None),
            ("journald", None, Place::Journald),
            ("syslog", None, Place::Syslog("/dev/log".into())),
            ("syslog:/run/s", None, Place::Syslog("/run/s".into())),
        ] {
            assert_eq!(target(text), Target { place, format }, "{text}");
        }
        for text in ["", "text:", "json:none", "text:journald", "syslog:"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
