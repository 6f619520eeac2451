//! What a check found.

use serde::Serialize;

/// How well a host does at one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// The fence holds; something beside it does not work, or could not be found out.
    Degraded,
    /// `exec` will not start.
    Missing,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// The outcome of one check. Serialized, it is an object of `doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How well that does.
    pub state: State,
    /// What there is.
    pub found: String,
    /// What to do about it, unless all is well.
    pub fix: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Ok,
            found: found.into(),
            fix: None,
        }
    }

    /// The fence holds, and something is not as it could be.
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

    /// There can be no fence.
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

    /// What only root can find out, and this process is not root.
    pub fn not_root(name: impl Into<String>) -> Self {
        Self::missing(
            name,
            "not root: not tried",
            "run `sudo qfence-user doctor` to find out",
        )
    }
}
