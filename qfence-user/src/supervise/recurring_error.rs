//! Reports an error that may recur at each retry only once.

use std::fmt::Display;

use anyhow::Result;

use crate::base::message_queue::MessageQueue;

/// The state of an operation that is retried.
#[derive(Debug, Default)]
pub(crate) struct RecurringError {
    /// The error that was reported last, until the operation succeeds.
    told: Option<String>,
}

impl RecurringError {
    /// An error that was reported in these words already.
    pub(crate) const fn reported(words: Option<String>) -> Self {
        Self { told: words }
    }

    /// Reports an error that differs from that of the last try, and `mended` when the operation succeeds again. Returns
    /// the value, if any.
    pub(crate) fn report<T>(
        &mut self,
        result: Result<T>,
        mended: impl Display,
        messages: &MessageQueue,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                if self.told.take().is_some() {
                    messages.notify(mended);
                }
                Some(value)
            }
            Err(error) => {
                let words = format!("{error:#}");
                if self.told.as_ref() != Some(&words) {
                    messages.notify(&words);
                    self.told = Some(words);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_said_once_and_its_end_too() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&said);
        let messages =
            MessageQueue::start(move |line| shown.lock().unwrap().push(line.to_owned())).unwrap();
        let mut error = RecurringError::default();
        for result in [Ok(1), Err("a"), Err("a"), Err("b"), Ok(2), Ok(3), Err("b")] {
            let expected = result.ok();
            let result = result.map_err(|error| anyhow!(error));
            assert_eq!(error.report(result, "mended", &messages), expected);
        }
        messages.flush();
        assert_eq!(*said.lock().unwrap(), ["a", "b", "mended", "b"]);
    }
}
