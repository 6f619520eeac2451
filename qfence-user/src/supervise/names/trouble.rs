//! Warns that no nameserver answers, without a flood of warnings.

use std::time::{Duration, Instant};

/// For how long nothing is said after it was said that nameservers answer again.
const PAUSE: Duration = Duration::from_secs(60);

/// What was said of the nameservers.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    is_said: bool,
    mended: Option<Instant>,
}

impl Trouble {
    /// What there is to say. To be called once per second, with the reason why no nameserver answers, if so.
    pub(super) fn next(
        &mut self,
        reason: Option<&str>,
        asked: &str,
        now: Instant,
    ) -> Option<String> {
        match (reason, self.is_said) {
            (Some(reason), false) => {
                let is_early = |mended: Instant| now.saturating_duration_since(mended) < PAUSE;
                if self.mended.is_some_and(is_early) {
                    return None;
                }
                self.is_said = true;
                Some(format!(
                    "warning: {reason}: the fence cannot look up names ({asked})"
                ))
            }
            (None, true) => {
                self.is_said = false;
                self.mended = Some(now);
                Some("the nameservers answer again: the fence can look up names".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_said_once_and_a_changing_one_seldom() {
        let mut trouble = Trouble::default();
        let start = Instant::now();
        let mut at = |seconds, reason| {
            let now = start + Duration::from_secs(seconds);
            trouble.next(reason, "asked: 192.0.2.53", now)
        };
        assert_eq!(at(0, None), None);
        let said = "warning: none answers: the fence cannot look up names (asked: 192.0.2.53)";
        assert_eq!(at(1, Some("none answers")).as_deref(), Some(said));
        assert_eq!(at(2, Some("none can be reached")), None);
        assert!(at(3, None).unwrap().contains("again"));
        assert_eq!(at(4, None), None);
        for second in 5..60 {
            let reason = (second % 2 == 0).then_some("none answers");
            assert_eq!(at(second, reason), None, "{second}");
        }
        assert_eq!(at(63, Some("none answers")).as_deref(), Some(said));
    }
}
