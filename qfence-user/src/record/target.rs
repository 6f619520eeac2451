//! The values of `--log`: where lines are written besides the fence's own record.

use std::{fmt, path::PathBuf, str::FromStr};

use super::rotation::Rotation;

/// One value of `--log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// The destination of the lines.
    pub kind: SinkKind,
    /// The format, if the value has one.
    pub format: Option<Format>,
}

/// The destination of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Standard error.
    Stderr,
    /// No sink.
    None,
    /// A file, to which lines are appended, and which is begun anew when it is full.
    File(PathBuf, Rotation),
    /// systemd's journal.
    Journald,
    /// A syslog daemon at a socket.
    Syslog(PathBuf),
}

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A readable line
    Text,
    /// One JSON object per line
    Json,
}

/// The default socket of the syslog daemon.
const DEV_LOG: &str = "/dev/log";

impl LogTarget {
    /// The syntax of all targets, for the help.
    pub const SYNTAX: &str = "PATH[,max=SIZE][,keep=NUMBER]|stderr|journald|syslog[:SOCKET]|none";
}

impl FromStr for LogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, kind) = match text.split_once(':') {
            Some(("text", kind)) => (Some(Format::Text), kind),
            Some(("json", kind)) => (Some(Format::Json), kind),
            _ => (None, text),
        };
        let (kind, rotation) = Rotation::split_from(kind)?;
        if let Some(advice) = advice(kind) {
            return Err(format!(
                "{advice}; for a file of that name give a path, ./{kind}"
            ));
        }
        let kind = match kind {
            "" => return Err(format!("give one of {}", Self::SYNTAX)),
            "stderr" => SinkKind::Stderr,
            "none" | "journald" | "syslog" if format.is_some() => {
                return Err(format!(
                    "{kind} has no format; for a file of that name give a path, ./{kind}"
                ));
            }
            "none" => SinkKind::None,
            "journald" => SinkKind::Journald,
            "syslog" => SinkKind::Syslog(DEV_LOG.into()),
            path => match path.strip_prefix("syslog:") {
                Some("") => return Err("give the path of a socket after syslog:".into()),
                Some(socket) => SinkKind::Syslog(socket.into()),
                None => SinkKind::File(path.into(), rotation),
            },
        };
        if rotation.is_given && !matches!(kind, SinkKind::File(..)) {
            return Err("only a file has the options max and keep".into());
        }
        Ok(Self { kind, format })
    }
}

/// Advice for a word that is taken for a target, but is none.
fn advice(word: &str) -> Option<&'static str> {
    Some(match word {
        "-" | "stdout" => {
            "standard output is the command's: give stderr, or /dev/stdout to have both in it"
        }
        "stdin" => "nothing can be written to standard input: give stderr",
        "journal" | "systemd" => "systemd's journal is journald",
        "text" | "json" => {
            "a format needs a target after it: json:PATH, json:stderr, text:PATH or text:stderr"
        }
        _ => return None,
    })
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SinkKind::Stderr => f.write_str("stderr"),
            SinkKind::None => f.write_str("none"),
            SinkKind::File(path, _) => path.display().fmt(f),
            SinkKind::Journald => f.write_str("journald"),
            SinkKind::Syslog(socket) => write!(f, "syslog:{}", socket.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> LogTarget {
        text.parse().unwrap()
    }

    #[test]
    fn targets_are_what_they_say() {
        let file = |path: &str| SinkKind::File(path.into(), Rotation::default());
        for (text, format, kind) in [
            ("stderr", None, SinkKind::Stderr),
            ("text:stderr", Some(Format::Text), SinkKind::Stderr),
            (
                "json:/var/log/x.json",
                Some(Format::Json),
                file("/var/log/x.json"),
            ),
            ("/var/log/x", None, file("/var/log/x")),
            ("a:b", None, file("a:b")),
            ("none", None, SinkKind::None),
            ("journald", None, SinkKind::Journald),
            ("syslog", None, SinkKind::Syslog("/dev/log".into())),
            ("syslog:/run/s", None, SinkKind::Syslog("/run/s".into())),
            ("./stdout", None, file("./stdout")),
            ("json:./-", Some(Format::Json), file("./-")),
            ("/dev/stdout", None, file("/dev/stdout")),
        ] {
            assert_eq!(target(text), LogTarget { kind, format }, "{text}");
        }
        for text in ["", "text:", "json:none", "text:journald", "syslog:"] {
            assert!(text.parse::<LogTarget>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_file_has_a_size() {
        let sized = Rotation {
            max: Some(100_000_000),
            keep: 5,
            is_given: true,
        };
        let json = target("json:/a,b,max=100M,keep=5");
        assert_eq!(json.format, Some(Format::Json));
        assert_eq!(json.kind, SinkKind::File("/a,b".into(), sized));
        assert_eq!(json.to_string(), "/a,b");
        for text in [
            "stderr,max=1M",
            "json:stderr,keep=1",
            "journald,max=1M",
            "syslog:/run/s,max=1M",
            "none,keep=1",
            "-,max=1M",
            ",max=1M",
        ] {
            assert!(text.parse::<LogTarget>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_taken_for_a_target_is_no_file() {
        for text in [
            "-",
            "stdout",
            "json:-",
            "text:stdout",
            "stdin",
            "json",
            "text",
            "journal",
        ] {
            let error = text.parse::<LogTarget>().unwrap_err();
            let (_, word) = text.split_once(':').unwrap_or(("", text));
            let file = format!("give a path, ./{word}");
            assert!(error.ends_with(&file), "{text}: {error}");
        }
        let error = "stdout".parse::<LogTarget>().unwrap_err();
        assert!(error.contains("/dev/stdout"), "{error}");
    }
}
