//! What a rule that denies cannot have. Errors about such a rule advise nothing else that it cannot have.

use qfence_common::Action;

use super::{error::RuleError, url};
use crate::policy::{protocol::Proto, rule::Match};

/// Checks what was parsed from the text of a rule that denies.
pub(super) fn check(text: &str, parsed: Result<Match, RuleError>) -> Result<Match, RuleError> {
    match parsed {
        Ok(of) => match refusal(text, &of) {
            Some(error) => Err(error),
            None => Ok(of),
        },
        Err(error) => Err(of_denial(text, error)),
    }
}

/// Why no rule that denies can have this match.
fn refusal(text: &str, of: &Match) -> Option<RuleError> {
    if of.is_self() {
        return Some(RuleError::DeniedSelf);
    }
    let has_more = of.protocol != Proto::Any || !of.ports.is_every();
    let name = of.pattern().filter(|_| has_more)?.clone();
    Some(RuleError::DeniedNameWithPorts {
        text: text.into(),
        name,
    })
}

/// The error as it is for a rule that denies.
fn of_denial(text: &str, error: RuleError) -> RuleError {
    match error {
        RuleError::Url { .. } => url::error(Action::Deny, text).unwrap_or(error),
        RuleError::NotOfSelf => RuleError::DeniedSelf,
        RuleError::UnknownDestination { name, .. } => {
            RuleError::unknown_destination(&name, Action::Deny)
        }
        RuleError::NoPortsThere { ref instead, .. } => refusal(text, instead).unwrap_or(error),
        other => other,
    }
}
