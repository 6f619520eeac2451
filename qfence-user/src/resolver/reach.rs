//! Whether the nameservers of the host answer at all.

use std::sync::{Mutex, PoisonError};

use super::{flight::Outcome, upstream::Failure};

/// How many questions in a row must be without an answer, once there were answers: a single name can be without one because the
/// nameservers of its zone are silent, and it is asked for by two types.
const IN_A_ROW: u32 = 3;

/// What the last questions to nameservers came to.
#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    has_answered: bool,
    /// The questions since the last answer.
    unanswered: u32,
    trouble: Option<Failure>,
}

impl Reach {
    /// Takes what came of a question. An error that a nameserver answers is an answer.
    pub(super) fn take(&self, outcome: &Outcome) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) | Err(Failure::Code(_)) => {
                *state = State {
                    has_answered: true,
                    ..State::default()
                }
            }
            Err(Failure::GivenUp) => {}
            Err(failure) => {
                state.unanswered = state.unanswered.saturating_add(1);
                if !state.has_answered || state.unanswered >= IN_A_ROW {
                    state.trouble = Some(*failure);
                }
            }
        }
    }

    /// Why no nameserver answers, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.trouble.as_ref().map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::base::iana::Rcode;

    use super::*;
    use crate::resolver::found::Found;

    #[test]
    fn one_name_without_an_answer_is_no_trouble_and_silence_is() {
        let found = Arc::new(Found {
            no_name: true,
            aliases: Vec::new(),
            addresses: Vec::new(),
            ttl: 0,
        });
        let reach = Reach::default();
        let take = |outcome: Result<Arc<Found>, Failure>| {
            reach.take(&outcome);
            reach.trouble()
        };
        assert_eq!(take(Err(Failure::GivenUp)), None);
        let silent = take(Err(Failure::Silent)).unwrap();
        assert_eq!(silent, "no nameserver of the host answers", "none ever has");
        assert_eq!(take(Ok(Arc::clone(&found))), None);
        for _ in 1..IN_A_ROW {
            assert_eq!(take(Err(Failure::Silent)), None);
        }
        assert_eq!(take(Err(Failure::Code(Some(Rcode::SERVFAIL)))), None);
        for _ in 1..IN_A_ROW {
            assert_eq!(take(Err(Failure::Silent)), None);
        }
        assert_eq!(take(Err(Failure::Silent)), Some(silent));
        assert_eq!(take(Ok(found)), None);
    }
}
