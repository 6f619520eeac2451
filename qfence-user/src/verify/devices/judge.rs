//! The verdict on a row: from what came of its frames without a fence, in a fence, and with either layer taken away.

use qfence_common::Hook;

use super::{
    bed::Outcome,
    row::{Fenced, Row},
};
use crate::{
    probe::frame::answer::Answer,
    verify::judge::{End, Verdict},
};

/// What came of the frames of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The result.
    pub end: End,
    /// The host got them, and not only the internet or a neighbour.
    pub is_at_host: bool,
    /// It is what shows that the frames arrive.
    pub shows: bool,
    /// It is what a fence makes of them.
    pub is_held: bool,
    /// How they were refused, if they were.
    pub answer: Option<Refusal>,
}

/// The answer to a refused frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// A reset.
    Reset,
    /// ICMP: administratively prohibited.
    Prohibited,
}

impl Refusal {
    /// The word for it in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Prohibited => "prohibited",
        }
    }
}

impl Seen {
    /// What an outcome is for a row.
    #[must_use]
    pub fn new(row: &Row, outcome: &Outcome) -> Self {
        let refusal = |answer: &Answer| match answer {
            Answer::Reset => Some(Refusal::Reset),
            Answer::Prohibited => Some(Refusal::Prohibited),
            _ => None,
        };
        let arrived = &outcome.arrived;
        let somewhere = arrived.delivered + arrived.others + arrived.internet + arrived.neighbour;
        let end = if outcome
            .answers
            .iter()
            .any(|answer| refusal(answer).is_none())
        {
            End::Reached
        } else if somewhere > 0 {
            End::Arrived
        } else {
            End::Nothing
        };
        Self {
            end,
            is_at_host: arrived.delivered + arrived.others > 0,
            shows: row.shows(outcome),
            is_held: row.is_held(outcome),
            answer: outcome.answers.iter().find_map(refusal),
        }
    }
}

/// All that was seen of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trials {
    /// Without a fence.
    pub without: Seen,
    /// In a fence.
    pub with: Seen,
    /// The layer that recorded a refusal in the fence.
    pub recorded: Option<Hook>,
    /// With only the second layer of a fence; `None` if it was not tried.
    pub without_frame: Option<Seen>,
    /// With only the first layer of a fence; `None` if it was not tried.
    pub without_local_in: Option<Seen>,
}

impl Trials {
    /// The layers that keep the frames from the host alone. Each is found by taking the other away. There is none if each needs
    /// the other. Where nothing arrives without a fence,
    /// it is the layer that recorded a refusal.
    #[must_use]
    pub fn layers(&self) -> Vec<&'static str> {
        if self.with.end.got_through() {
            return Vec::new();
        }
        if !self.without.end.got_through() {
            return self.recorded.iter().map(|hook| hook.name()).collect();
        }
        let holds = |other: Option<Seen>| other.is_some_and(|seen| !self.arrives(seen));
        let frame = holds(self.without_local_in).then_some(Hook::Frame.name());
        let local_in = holds(self.without_frame).then_some(Hook::LocalIn.name());
        frame.into_iter().chain(local_in).collect()
    }

    /// Whether frames arrive at the host, or, if it does not get them without a fence, elsewhere.
    fn arrives(&self, seen: Seen) -> bool {
        if self.without.is_at_host {
            seen.is_at_host
        } else {
            seen.end.got_through()
        }
    }

    /// Whether something shows that the fence refused the frames: a record of it, or that they arrive as soon as a layer is
    /// taken away.
    fn is_shown(&self) -> bool {
        let others = [self.without_frame, self.without_local_in];
        let mut tried = others.into_iter().flatten();
        self.recorded.is_some() || tried.any(|seen| self.arrives(seen))
    }

    /// The verdict on a row of which a fence makes this.
    #[must_use]
    pub fn verdict(&self, fenced: Fenced) -> Verdict {
        let (without, with) = (&self.without, &self.with);
        match fenced {
            Fenced::Through if with.shows => Verdict::Works,
            Fenced::Through => Verdict::Broken,
            Fenced::Unanswered | Fenced::NotForTheHost if with.is_held => Verdict::Open,
            Fenced::Unanswered | Fenced::NotForTheHost => Verdict::Passed,
            Fenced::Refused(_) if with.end.got_through() => Verdict::Passed,
            // Nothing arrived, and the guest is not told as it should be.
            Fenced::Refused(_) if !with.is_held => Verdict::Broken,
            Fenced::Refused(_) if !without.shows => Verdict::Unproven,
            // The host discards such frames by itself.
            Fenced::Refused(_) if !without.end.got_through() => Verdict::Untried,
            Fenced::Refused(_) if self.is_shown() => Verdict::Stopped,
            Fenced::Refused(_) => Verdict::Unproven,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::devices::row::Said;

    const REFUSED: Fenced = Fenced::Refused(Said::Reset);

    fn seen(end: End, shows: bool, is_held: bool) -> Seen {
        Seen {
            end,
            is_at_host: end.got_through(),
            shows,
            is_held,
            answer: None,
        }
    }

    /// A frame that both layers hold.
    fn held() -> Trials {
        let nothing = seen(End::Nothing, false, true);
        Trials {
            without: seen(End::Reached, true, false),
            with: nothing,
            recorded: Some(Hook::Frame),
            without_frame: Some(nothing),
            without_local_in: Some(nothing),
        }
    }

    #[test]
    fn a_frame_is_stopped_if_it_arrives_otherwise_and_its_refusal_is_shown() {
        let held = held();
        assert_eq!(held.verdict(REFUSED), Verdict::Stopped);
        assert_eq!(held.layers(), ["frame", "local_in"]);
        let silent = Trials {
            recorded: None,
            ..held.clone()
        };
        assert_eq!(silent.verdict(REFUSED), Verdict::Unproven);
        let by_one = Trials {
            without_local_in: Some(seen(End::Arrived, true, false)),
            ..silent
        };
        assert_eq!(by_one.verdict(REFUSED), Verdict::Stopped);
        assert_eq!(by_one.layers(), ["local_in"]);
        let passed = Trials {
            with: seen(End::Arrived, true, false),
            ..held.clone()
        };
        assert_eq!(passed.verdict(REFUSED), Verdict::Passed);
        assert!(passed.layers().is_empty());
        let untold = Trials {
            with: seen(End::Nothing, false, false),
            ..held.clone()
        };
        assert_eq!(untold.verdict(REFUSED), Verdict::Broken);
        let no_control = Trials {
            without: seen(End::Nothing, false, false),
            ..held
        };
        assert_eq!(no_control.verdict(REFUSED), Verdict::Unproven);
    }

    #[test]
    fn the_host_counts_if_it_is_among_those_who_get_a_frame() {
        let elsewhere = Seen {
            is_at_host: false,
            ..seen(End::Arrived, true, false)
        };
        let bridged = Trials {
            without_frame: Some(elsewhere),
            ..held()
        };
        assert_eq!(bridged.layers(), ["frame", "local_in"]);
        let forwarded = Trials {
            without: elsewhere,
            ..bridged
        };
        assert_eq!(forwarded.layers(), ["frame"]);
    }

    #[test]
    fn what_the_host_discards_by_itself_shows_nothing() {
        let discarded = Trials {
            without: seen(End::Nothing, true, false),
            ..held()
        };
        assert_eq!(discarded.verdict(REFUSED), Verdict::Untried);
        assert_eq!(discarded.layers(), ["frame"]);
    }

    #[test]
    fn what_is_let_through_must_arrive() {
        let through = |with| Trials { with, ..held() };
        let works = through(seen(End::Reached, true, true));
        assert_eq!(works.verdict(Fenced::Through), Verdict::Works);
        let broken = through(seen(End::Nothing, false, false));
        assert_eq!(broken.verdict(Fenced::Through), Verdict::Broken);
        for fenced in [Fenced::Unanswered, Fenced::NotForTheHost] {
            let open = through(seen(End::Arrived, true, true));
            assert_eq!(open.verdict(fenced), Verdict::Open);
            let passed = through(seen(End::Reached, true, false));
            assert_eq!(passed.verdict(fenced), Verdict::Passed);
        }
    }
}
