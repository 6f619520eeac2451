//! Derives the verdict on an attempt from the results of its trials.

use serde::Serialize;

use crate::probe::{Ending, ProbeResult};

/// The result of one trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// An answer came back.
    Reached,
    /// The host received a packet of the probe, but no answer came back.
    Arrived,
    /// No packet of the probe was seen.
    Nothing,
    /// This kernel does not support the method.
    Unsupported,
    /// The user lacks the permission to try it.
    Unprivileged,
}

impl End {
    pub(super) fn got_through(self) -> bool {
        matches!(self, Self::Reached | Self::Arrived)
    }

    fn cannot_be(self) -> bool {
        matches!(self, Self::Unsupported | Self::Unprivileged)
    }
}

/// One trial of an attempt, outside or inside the fence.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The result.
    pub end: End,
    /// The error, by name.
    pub errno: Option<String>,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The hooks that recorded a refusal during the trial, each once, in the order of their first refusal.
    pub layers: Vec<&'static str>,
}

impl Trial {
    /// Builds a trial from the outcome of a probe, the number of packets that the host received, and the layers that
    /// recorded a refusal. A packet beside a probe without a socket is another's.
    #[must_use]
    pub fn new(outcome: ProbeResult, packets: usize, layers: Vec<&'static str>) -> Self {
        let end = match outcome.ending {
            Ending::Reached => End::Reached,
            _ if packets > 0 && outcome.had_socket() => End::Arrived,
            Ending::Unsupported => End::Unsupported,
            Ending::Unprivileged => End::Unprivileged,
            Ending::Sent | Ending::Timeout | Ending::Failed => End::Nothing,
        };
        Self {
            end,
            errno: outcome.errno,
            ms: outcome.ms,
            layers,
        }
    }
}

/// The verdict on an attempt or on traffic that must work, from its trials outside and inside the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reaches the host without the fence, and the fence stopped it and recorded that.
    Stopped,
    /// It must work, and works.
    Works,
    /// It cannot be tried: this kernel does not support it, or an unprivileged user lacks the permission.
    Untried,
    /// It passed the fence.
    Passed,
    /// It must work, and does not.
    Broken,
    /// Nothing is promised about it.
    Open,
    /// It did not get through, but nothing shows that the fence stopped it: it fails without the fence as well, or the
    /// fence recorded no refusal.
    Unproven,
}

impl Verdict {
    /// Whether the fence can be relied on with this verdict.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Works | Self::Untried | Self::Open
        )
    }

    /// The word for the verdict in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Works => "works",
            Self::Untried => "untried",
            Self::Open => "open",
            Self::Passed => "PASSED",
            Self::Broken => "BROKEN",
            Self::Unproven => "UNPROVEN",
        }
    }
}

/// Judges an attempt to reach the host.
#[must_use]
pub fn probe(without: &Trial, with: &Trial) -> Verdict {
    if with.end.got_through() {
        Verdict::Passed
    } else if without.end.cannot_be() {
        Verdict::Untried
    } else if without.end.got_through() && !with.layers.is_empty() {
        Verdict::Stopped
    } else {
        Verdict::Unproven
    }
}

/// The name of the system call filter in the column of layers. The filter records nothing.
pub const FILTER: &str = "seccomp";

/// Whether the system call filter alone stops an attempt in the same way as the fence: with only the filter, no packet
/// of the attempt is seen, and the error is the same.
#[must_use]
pub fn is_stopped_by_filter(with: &Trial, filtered: &Trial) -> bool {
    filtered.end == End::Nothing && filtered.errno.is_some() && filtered.errno == with.errno
}

/// Judges traffic that must work.
#[must_use]
pub fn must_work(without: &Trial, with: &Trial) -> Verdict {
    if with.end == End::Reached {
        Verdict::Works
    } else if without.end.cannot_be() {
        Verdict::Untried
    } else {
        Verdict::Broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Step;

    const ENDS: [End; 5] = [
        End::Reached,
        End::Arrived,
        End::Nothing,
        End::Unsupported,
        End::Unprivileged,
    ];

    fn trial(end: End, layers: &[&'static str]) -> Trial {
        Trial {
            end,
            errno: None,
            ms: 0.1,
            layers: layers.to_vec(),
        }
    }

    #[test]
    fn what_gets_through_the_fence_has_passed_whatever_else() {
        for end in [End::Reached, End::Arrived] {
            for control in ENDS {
                let with = trial(end, &["connect4"]);
                assert_eq!(probe(&trial(control, &[]), &with), Verdict::Passed);
            }
        }
    }

    #[test]
    fn the_filter_has_stopped_what_it_stops_alone_and_alike() {
        let ended = |end, errno: Option<&str>| Trial {
            errno: errno.map(str::to_owned),
            ..trial(end, &[])
        };
        let with = ended(End::Nothing, Some("EPERM"));
        assert!(is_stopped_by_filter(&with, &with));
        for filtered in [
            ended(End::Reached, None),
            ended(End::Arrived, Some("EPERM")),
            ended(End::Nothing, Some("EACCES")),
            ended(End::Nothing, None),
            ended(End::Unprivileged, Some("EPERM")),
        ] {
            assert!(!is_stopped_by_filter(&with, &filtered), "{filtered:?}");
        }
        let silent = ended(End::Nothing, None);
        assert!(!is_stopped_by_filter(&silent, &silent));
    }

    #[test]
    fn it_is_stopped_only_if_it_gets_through_outside_and_is_on_record() {
        let (nothing, recorded) = (trial(End::Nothing, &[]), trial(End::Nothing, &["egress"]));
        for end in [End::Reached, End::Arrived] {
            assert_eq!(probe(&trial(end, &[]), &recorded), Verdict::Stopped);
            assert_eq!(probe(&trial(end, &[]), &nothing), Verdict::Unproven);
        }
        assert_eq!(probe(&nothing, &recorded), Verdict::Unproven);
        for end in [End::Unsupported, End::Unprivileged] {
            assert_eq!(probe(&trial(end, &[]), &trial(end, &[])), Verdict::Untried);
            // Inside, it fails for another reason, so nothing is shown.
            let odd = probe(&trial(End::Reached, &[]), &trial(end, &[]));
            assert_eq!(odd, Verdict::Unproven);
        }
    }

    #[test]
    fn what_must_work_needs_an_answer() {
        let outside = trial(End::Reached, &[]);
        assert_eq!(
            must_work(&outside, &trial(End::Reached, &[])),
            Verdict::Works
        );
        for end in [End::Arrived, End::Nothing, End::Unsupported] {
            assert_eq!(must_work(&outside, &trial(end, &[])), Verdict::Broken);
        }
        let nowhere = trial(End::Unsupported, &[]);
        assert_eq!(must_work(&nowhere, &nowhere), Verdict::Untried);
        let silent = trial(End::Nothing, &[]);
        assert_eq!(must_work(&silent, &silent), Verdict::Broken);
    }

    #[test]
    fn a_packet_that_was_seen_counts_whatever_the_call_said() {
        let outcome = |ending| ProbeResult {
            probe: "udp/127.0.0.1/1".into(),
            ending,
            step: Some(Step::Send),
            errno: None,
            reply: None,
            ms: 1.0,
        };
        for ending in [
            Ending::Sent,
            Ending::Failed,
            Ending::Timeout,
            Ending::Unsupported,
        ] {
            assert_eq!(Trial::new(outcome(ending), 1, Vec::new()).end, End::Arrived);
        }
        assert_eq!(
            Trial::new(outcome(Ending::Failed), 0, Vec::new()).end,
            End::Nothing
        );
        let without_socket = |ending| ProbeResult {
            step: Some(Step::Socket),
            ..outcome(ending)
        };
        for (ending, end) in [
            (Ending::Failed, End::Nothing),
            (Ending::Unsupported, End::Unsupported),
            (Ending::Unprivileged, End::Unprivileged),
        ] {
            assert_eq!(Trial::new(without_socket(ending), 1, Vec::new()).end, end);
        }
        assert_eq!(
            Trial::new(outcome(Ending::Reached), 0, Vec::new()).end,
            End::Reached
        );
    }

    #[test]
    fn only_good_verdicts_are_good() {
        for verdict in [Verdict::Passed, Verdict::Broken, Verdict::Unproven] {
            assert!(!verdict.is_good());
        }
    }
}
