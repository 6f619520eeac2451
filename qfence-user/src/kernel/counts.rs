//! Reads and resets the counters in a fence's maps.

use std::iter::Sum;

use anyhow::{Context, Result};
use qfence_common::{
    Action, Direction, Hits, Outcome, Sighting, Tally, Traffic,
    abi::Counter,
    tally::{Class, more_hits_index, tally_index},
    verdict::MAX_RULES,
};

use super::maps::{Maps, MoreHits, NO_HITS, NO_SIGHTINGS};

const NO_RESET: &str = "cannot reset the counters of a rule";

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// All that was refused.
    pub refused: u64,
    /// All that would have been, in monitor mode.
    pub monitored: u64,
    /// What of both there was an event of: the first of each key.
    pub first: u64,
    /// What of both was counted with others of its key.
    pub repeated: u64,
    /// What of both there was no room for. The three are all.
    pub lost: u64,
    /// Packets among them that could not be understood.
    pub unparsed: u64,
    /// Calls that no rule allows and that were let through, as answers to peers on the host that spoke first.
    pub reply_calls: u64,
    /// Packets likewise.
    pub reply_packets: u64,
    /// Those of `monitored` that the map of sightings had no room for.
    pub unlisted: u64,
}

impl Counts {
    /// All that there should be a record of.
    #[must_use]
    pub fn on_record(self) -> u64 {
        self.refused + self.monitored
    }
}

impl Maps {
    /// How often a rule has decided, on all CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn hits(&self, rule: u32) -> Result<Hits> {
        let sum = |sum: Hits, of: &Hits| Hits {
            calls: sum.calls + of.calls,
            packets: sum.packets + of.packets,
        };
        if rule < self.hits.len() {
            let of_cpus = self.hits.get(&rule, 0).context(NO_HITS)?;
            return Ok(of_cpus.iter().fold(Hits::default(), sum));
        }
        let Some(more) = self.more_hits.get().context(NO_HITS)? else {
            return Ok(Hits::default());
        };
        let of_cpus: Vec<_> = places(&more, rule)
            .map(|index| more.get(&index, 0))
            .collect::<Result<_, _>>()
            .context(NO_HITS)?;
        Ok(of_cpus.iter().fold(Hits::default(), sum))
    }

    /// Begins to count anew for a rule's number that another rule had.
    ///
    /// # Errors
    /// If the counters cannot be written.
    pub fn forget_hits(&mut self, rule: u32) -> Result<()> {
        debug_assert!(rule < MAX_RULES);
        if rule < self.hits.len() {
            let of_cpus = self.hits.get(&rule, 0).context(NO_HITS)?;
            let zeros = vec![Hits::default(); of_cpus.len()];
            return self.hits.set(rule, zeros.try_into()?, 0).context(NO_RESET);
        }
        let Some(mut more) = self.more_hits.get().context(NO_HITS)? else {
            return Ok(());
        };
        places(&more, rule)
            .try_for_each(|index| more.set(index, Hits::default(), 0))
            .context(NO_RESET)
    }

    /// What monitor mode has let through, and how often.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn sightings(&self) -> Result<Vec<(Sighting, u64)>> {
        let Some(sightings) = self.sightings.get().context(NO_SIGHTINGS)? else {
            return Ok(Vec::new());
        };
        sightings
            .iter()
            .collect::<Result<_, _>>()
            .context(NO_SIGHTINGS)
    }

    /// What has been counted since the start, on all CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let total = |counter: Counter| -> Result<u64> {
            let values = self
                .counters
                .get(&(counter as u32), 0)
                .context("cannot read the counters")?;
            Ok(values.iter().sum())
        };
        Ok(Counts {
            refused: total(Counter::Refused)?,
            monitored: total(Counter::Monitored)?,
            first: total(Counter::First)?,
            repeated: total(Counter::Repeated)?,
            lost: total(Counter::Lost)?,
            unparsed: total(Counter::Unparsed)?,
            unlisted: total(Counter::Unlisted)?,
            reply_calls: total(Counter::ReplyCalls)?,
            reply_packets: total(Counter::ReplyPackets)?,
        })
    }

    /// How often a verdict was given since the start, on all CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn verdicts(&self, action: Action, class: Class) -> Result<u64> {
        Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.action() == action)
            .map(|outcome| self.tallies(outcome, class, Tally::verdicts))
            .sum()
    }

    /// The traffic since the start, on all CPUs.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn traffic(&self, direction: Direction) -> Result<Traffic> {
        Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.direction() == direction)
            .flat_map(|outcome| Class::ALL.map(|class| (outcome, class)))
            .map(|(outcome, class)| self.tallies(outcome, class, Tally::traffic))
            .sum()
    }

    /// What of a tally is asked for, on all CPUs.
    fn tallies<T: Sum>(&self, outcome: Outcome, class: Class, what: fn(&Tally) -> T) -> Result<T> {
        let cpus = self
            .tallies
            .get(&tally_index(outcome, class), 0)
            .context("cannot read the counters of calls and packets")?;
        Ok(cpus.iter().map(what).sum())
    }
}

/// Where in a map of more hits those of a rule are, one for each CPU.
fn places(more: &MoreHits, rule: u32) -> impl Iterator<Item = u32> + use<> {
    let end = more.len();
    (0..)
        .map(move |cpu| more_hits_index(rule, cpu))
        .take_while(move |index| *index < end)
}
