//! The source of a rule.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The source of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// On the command line.
    Flag {
        /// The flag and its value: `--allow tcp:192.0.2.1:80`.
        text: String,
    },
    /// In a profile.
    Profile {
        /// The profile's name.
        name: String,
        /// Its file; `None` if it is shipped.
        path: Option<PathBuf>,
        /// The line.
        line: usize,
    },
    /// The default of a profile.
    Default {
        /// The profile's name.
        name: String,
        /// Its file; `None` if it is shipped.
        path: Option<PathBuf>,
        /// The line.
        line: usize,
    },
    /// Added to a policy that has rules by name ([`crate::policy::Policy::rules`]).
    Names,
    /// Given to a running fence.
    Running {
        /// The words of the command.
        text: String,
        /// For a rule for a while: when it is taken back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Until>,
    },
}

/// The end of a rule for a while.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Until {
    /// In nanoseconds since boot, by the clock that includes suspend.
    pub boot_ns: u64,
    /// As a time of the wall clock, RFC 3339, as it was set then.
    pub time: String,
}

impl Source {
    /// When the rule is taken back, if it is a rule for a while.
    #[must_use]
    pub fn end(&self) -> Option<&Until> {
        match self {
            Self::Running { until, .. } => until.as_ref(),
            Self::Flag { .. } | Self::Profile { .. } | Self::Default { .. } | Self::Names => None,
        }
    }

    /// Whether the rule is a default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        match self {
            Self::Default { .. } => true,
            Self::Flag { text } => text.starts_with("--default"),
            Self::Profile { .. } | Self::Running { .. } | Self::Names => false,
        }
    }

    /// Whether it is from a shipped profile, or added by qfence itself.
    #[must_use]
    pub fn is_shipped(&self) -> bool {
        matches!(
            self,
            Self::Profile { path: None, .. } | Self::Default { path: None, .. } | Self::Names
        )
    }
}

/// `--allow lan`, `web (/etc/qfence/profiles.d/web.toml:7)`, `host (shipped, line 7)`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { text } | Self::Running { text, until: None } => f.write_str(text),
            Self::Names => f.write_str("rules by name"),
            Self::Running {
                text,
                until: Some(Until { time, .. }),
            } => write!(f, "{text} until {time}"),
            Self::Profile { name, path, line } => in_profile(f, name, path.as_ref(), *line),
            Self::Default { name, path, line } => {
                f.write_str("default of ")?;
                in_profile(f, name, path.as_ref(), *line)
            }
        }
    }
}

fn in_profile(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    path: Option<&PathBuf>,
    line: usize,
) -> fmt::Result {
    match path {
        Some(path) => write!(f, "{name} ({}:{line})", path.display()),
        None => write!(f, "{name} (shipped, line {line})"),
    }
}
