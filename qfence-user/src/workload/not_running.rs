//! The error for a target that does not run now, and may run later.

/// The target does not run. What is not known at all, such as a unit that is not installed, counts as this too if it may
/// come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotRunning(pub(super) String);

/// Whether an error says that the target does not run now.
#[must_use]
pub fn is_not_running(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NotRunning>().is_some()
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn it_is_recognised_beneath_other_words() {
        let error = anyhow::Error::from(NotRunning("x".into()));
        assert!(is_not_running(&error.context("y")));
        let none: Option<()> = None;
        let error = none.with_context(|| NotRunning("x".into())).unwrap_err();
        assert!(is_not_running(&error));
        assert!(!is_not_running(&anyhow!("x")));
    }
}
