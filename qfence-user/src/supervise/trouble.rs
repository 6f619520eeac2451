//! What fails, is tried again, and is to be said once, not at each try.

use std::fmt::Display;

use anyhow::Result;

use crate::base::aside::Aside;

/// Something that is tried again and again.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What was said of it last, while it fails.
    told: Option<String>,
}

impl Trouble {
    /// Says an error that was not said at the last try, and `mended` when there is none any more; the value if there is
    /// one.
    pub(crate) fn report<T>(
        &mut self,
        result: Result<T>,
        mended: impl Display,
        aside: &Aside,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                if self.told.take().is_some() {
                    aside.say(mended);
                }
                Some(value)
            }
            Err(error) => {
                let words = format!("{error:#}");
                if self.told.as_ref() != Some(&words) {
                    aside.say(&words);
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
        let aside = Aside::start(move |line| shown.lock().unwrap().push(line.to_owned())).unwrap();
        let mut trouble = Trouble::default();
        for result in [Ok(1), Err("a"), Err("a"), Err("b"), Ok(2), Ok(3), Err("b")] {
            let expected = result.ok();
            let result = result.map_err(|error| anyhow!(error));
            assert_eq!(trouble.report(result, "mended", &aside), expected);
        }
        aside.finish();
        assert_eq!(*said.lock().unwrap(), ["a", "b", "mended", "b"]);
    }
}
