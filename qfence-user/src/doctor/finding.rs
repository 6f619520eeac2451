//! The result of a check.

use serde::Serialize;

/// The state of a host in one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As required.
    Ok,
    /// Fences work. Something else does not work, or could not be checked.
    Degraded,
    /// `exec` cannot start a fence.
    Missing,
}

impl State {
    /// The name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// The result of one check. Serialized, it is an object of `doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub name: String,
    /// The state of the host.
    pub state: State,
    /// What was found.
    pub found: String,
    /// How to repair it, unless the state is `Ok`.
    pub fix: Option<String>,
}

impl Finding {
    /// The host is as required.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Ok,
            found: found.into(),
            fix: None,
        }
    }

    /// Fences work, but something else does not.
    pub fn degraded(
        name: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Degraded,
            fix: Some(fix.into()),
            ..Self::ok(name, found)
        }
    }

    /// No fence can be started.
    pub fn missing(
        name: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Missing,
            fix: Some(fix.into()),
            ..Self::ok(name, found)
        }
    }

    /// The check needs root, and this process is not root.
    pub fn not_root(name: impl Into<String>) -> Self {
        Self::missing(
            name,
            "not checked: this needs root",
            "run `sudo qfence-user doctor`",
        )
    }
}
