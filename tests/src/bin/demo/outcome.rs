//! The results of the two guests, compared with the promise of qfence, and their display.

use std::fmt;

/// The result of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The page was fetched.
    Reached,
    /// The connection was refused at once.
    Refused,
    /// There was no answer in time.
    NoAnswer,
    /// Another error.
    Failed {
        /// iPXE's error number: see <https://ipxe.org/err>.
        code: u32,
    },
}

/// The kind of a destination, as distinguished by qfence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Host,
    Name,
    Internet,
}

/// The targets of the tries, in their order.
const TARGETS: [Target; 4] = [Target::Host, Target::Host, Target::Name, Target::Internet];

/// The results of one guest.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// One for each try.
    pub(super) endings: Vec<Ending>,
    /// The number of connections that arrived at the host's web server.
    pub(super) arrivals: usize,
}

/// The two guests side by side.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// Descriptions of the tries: the host by two addresses, a name, the internet.
    pub(super) tries: [String; TARGETS.len()],
    /// The guest without a fence.
    pub(super) without: Run,
    /// The guest in a fence.
    pub(super) with: Run,
    /// The fence's log.
    pub(super) refusals: Vec<String>,
}

impl Comparison {
    /// Whether the results of both guests are as promised.
    pub(super) fn is_as_promised(&self) -> bool {
        self.faults_without().is_empty() && self.faults_with().is_empty()
    }

    /// Without a fence everything must be reached: otherwise a refusal with the fence shows nothing.
    fn faults_without(&self) -> Vec<String> {
        let mut faults = self.unexpected(&self.without, |_| Ending::Reached);
        if self.without.arrivals == 0 {
            faults.push("no connection was seen to arrive at the host".into());
        }
        faults
    }

    /// With a fence the host must be refused, and nothing else.
    fn faults_with(&self) -> Vec<String> {
        let mut faults = self.unexpected(&self.with, |target| match target {
            Target::Host => Ending::Refused,
            Target::Name | Target::Internet => Ending::Reached,
        });
        if self.with.arrivals > 0 {
            faults.push(format!("connections at the host: {}", self.with.arrivals));
        }
        let hosts = TARGETS.iter().filter(|&&target| target == Target::Host);
        if self.refusals.len() < hosts.count() {
            faults.push(format!("refusals in the log: {}", self.refusals.len()));
        }
        faults
    }

    /// The tries of a run that did not end as expected, in words.
    fn unexpected(&self, run: &Run, expected: impl Fn(Target) -> Ending) -> Vec<String> {
        let tries = TARGETS.iter().zip(&self.tries).enumerate();
        tries
            .filter_map(|(index, (&target, label))| match run.endings.get(index) {
                Some(&ending) if ending == expected(target) => None,
                Some(&ending) => Some(format!("{label}: {}", in_words(target, ending))),
                None => Some(format!("{label}: not tried")),
            })
            .collect()
    }

    fn verdict(&self) -> String {
        let (without, with) = (self.faults_without(), self.faults_with());
        if !with.is_empty() {
            return format!("qfence DOES NOT HOLD: with it, {}.", with.join("; "));
        }
        if !without.is_empty() {
            return format!(
                "This shows nothing: without qfence, {}.",
                without.join("; ")
            );
        }
        "qfence holds: the guest has the internet and cannot reach its host.".into()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line =
            |what: &str, without: &str, with: &str| writeln!(f, "{what:<36}{without:<18}{with}");
        line("the guest tries", "without qfence", "with qfence")?;
        for (index, (label, &target)) in self.tries.iter().zip(&TARGETS).enumerate() {
            let cell = |run: &Run| {
                let ending = run.endings.get(index);
                ending.map_or("not tried".into(), |&ending| in_words(target, ending))
            };
            line(label, &cell(&self.without), &cell(&self.with))?;
        }
        let arrivals = |run: &Run| run.arrivals.to_string();
        line(
            "connections that came to the host",
            &arrivals(&self.without),
            &arrivals(&self.with),
        )?;
        write!(f, "\n{}\n\nRefused, as logged:", self.verdict())?;
        if self.refusals.is_empty() {
            write!(f, " nothing")?;
        }
        for refusal in &self.refusals {
            write!(f, "\n{refusal}")?;
        }
        Ok(())
    }
}

fn in_words(target: Target, ending: Ending) -> String {
    match ending {
        Ending::Reached if target == Target::Name => "resolved".into(),
        Ending::Reached => "reached".into(),
        Ending::Refused => "refused".into(),
        Ending::NoAnswer => "no answer".into(),
        Ending::Failed { code } => format!("error {code:08x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending::*, *};

    const ALL: [Ending; 4] = [Reached; 4];
    const FENCED: [Ending; 4] = [Refused, Refused, Reached, Reached];

    fn run(endings: [Ending; 4], arrivals: usize) -> Run {
        let endings = endings.to_vec();
        Run { endings, arrivals }
    }

    fn promised() -> Comparison {
        Comparison {
            tries: [
                "the host",
                "the host's LAN address",
                "a name",
                "the internet",
            ]
            .map(str::to_owned),
            without: run(ALL, 2),
            with: run(FENCED, 0),
            refusals: vec!["refused one".into(), "refused two".into()],
        }
    }

    fn with(run: Run) -> Comparison {
        let with = run;
        Comparison { with, ..promised() }
    }

    fn without(run: Run) -> Comparison {
        let without = run;
        Comparison {
            without,
            ..promised()
        }
    }

    #[track_caller]
    fn fails(comparison: &Comparison, verdict: &str) {
        assert!(!comparison.is_as_promised(), "{comparison}");
        assert_eq!(comparison.verdict(), verdict);
    }

    #[test]
    fn what_is_promised_is_shown_as_a_table_a_verdict_and_the_log() {
        let comparison = promised();
        assert!(comparison.is_as_promised());
        assert_eq!(
            comparison.to_string(),
            "\
the guest tries                     without qfence    with qfence
the host                            reached           refused
the host's LAN address              reached           refused
a name                              resolved          resolved
the internet                        reached           reached
connections that came to the host   2                 0

qfence holds: the guest has the internet and cannot reach its host.

Refused, as logged:
refused one
refused two"
        );
    }

    #[test]
    fn a_fence_that_lets_through_does_not_hold() {
        let mut comparison = with(run(ALL, 2));
        comparison.refusals.clear();
        fails(
            &comparison,
            "qfence DOES NOT HOLD: with it, the host: reached; the host's LAN address: reached; \
             connections at the host: 2; refusals in the log: 0.",
        );
        assert!(
            comparison
                .to_string()
                .ends_with("Refused, as logged: nothing")
        );
    }

    #[test]
    fn one_address_of_the_host_is_one_too_many() {
        fails(
            &with(run([Refused, Reached, Reached, Reached], 1)),
            "qfence DOES NOT HOLD: with it, the host's LAN address: reached; \
             connections at the host: 1.",
        );
    }

    #[test]
    fn what_arrived_counts_whatever_the_guest_saw() {
        fails(
            &with(run(FENCED, 1)),
            "qfence DOES NOT HOLD: with it, connections at the host: 1.",
        );
    }

    #[test]
    fn to_be_silent_is_not_to_refuse() {
        fails(
            &with(run([NoAnswer, Refused, Reached, Reached], 0)),
            "qfence DOES NOT HOLD: with it, the host: no answer.",
        );
    }

    #[test]
    fn a_fence_that_cuts_off_names_and_internet_does_not_hold() {
        fails(
            &with(run(
                [Refused, Refused, Failed { code: 0x2d0c_618e }, Refused],
                0,
            )),
            "qfence DOES NOT HOLD: with it, a name: error 2d0c618e; the internet: refused.",
        );
    }

    #[test]
    fn a_refusal_that_is_not_logged_is_told() {
        let mut comparison = promised();
        comparison.refusals.pop();
        fails(
            &comparison,
            "qfence DOES NOT HOLD: with it, refusals in the log: 1.",
        );
    }

    #[test]
    fn without_a_host_that_can_be_reached_nothing_is_shown() {
        fails(
            &without(run([Refused, Reached, Reached, Reached], 1)),
            "This shows nothing: without qfence, the host: refused.",
        );
        fails(
            &without(run(ALL, 0)),
            "This shows nothing: without qfence, no connection was seen to arrive at the host.",
        );
    }

    #[test]
    fn a_try_that_is_missing_is_no_success() {
        let mut comparison = promised();
        comparison.with.endings.pop();
        fails(
            &comparison,
            "qfence DOES NOT HOLD: with it, the internet: not tried.",
        );
    }
}
