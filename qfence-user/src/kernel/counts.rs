//! Reads and resets the counters in a fence's maps.

use std::iter::Sum;

use anyhow::{Context, Result};
use aya::maps::IterableMap;
use qfence_common::{
    Action, Direction, Hits, Outcome, RuleCounts, Sighting, Tally, Traffic,
    abi::Counter,
    tally::{Class, more_hits_index, tally_index},
    verdict::MAX_RULES,
};

use super::{
    fill::read_all,
    maps::{Maps, MoreHits, NO_HITS, NO_SIGHTINGS},
};

const NO_RESET: &str = "cannot reset the counters of a rule";

/// The counters of a fence since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Refused attempts.
    pub refused: u64,
    /// Attempts that monitor mode let through and enforcing would refuse.
    pub monitored: u64,
    /// Attempts of both kinds that produced an event: the first of each key.
    pub first: u64,
    /// Attempts of both kinds that were counted under a known key.
    pub repeated: u64,
    /// Attempts of both kinds for which there was no room. `first`, `repeated` and `lost` add up to all attempts.
    pub lost: u64,
    /// The packets among them that could not be parsed.
    pub unparsed: u64,
    /// Calls that only the reply exception allowed.
    pub reply_calls: u64,
    /// Packets that only the reply exception allowed.
    pub reply_packets: u64,
    /// The attempts of `monitored` that did not fit in the map of sightings.
    pub unlisted: u64,
    /// Peers on the host that were forgotten too early, or not remembered, for lack of room: their answers are refused
    /// until they send again.
    pub peers_forgotten: u64,
}

impl Counts {
    /// The number of attempts that the record should have.
    #[must_use]
    pub fn on_record(self) -> u64 {
        self.refused + self.monitored
    }
}

impl Maps {
    /// The hits of a rule, over all CPUs.
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
            let hits = of_cpus.iter().map(RuleCounts::hits);
            return Ok(hits.fold(Hits::default(), |all, of| sum(all, &of)));
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

    /// Resets the decisions of a rule number that another rule had.
    ///
    /// # Errors
    /// If the counters cannot be written.
    pub fn forget_hits(&mut self, rule: u32) -> Result<()> {
        debug_assert!(rule < MAX_RULES);
        if rule < self.hits.len() {
            let of_cpus = self.hits.get(&rule, 0).context(NO_HITS)?;
            let new: Vec<_> = of_cpus.iter().map(RuleCounts::of_new_rule).collect();
            return self.hits.set(rule, new.try_into()?, 0).context(NO_RESET);
        }
        let Some(mut more) = self.more_hits.get().context(NO_HITS)? else {
            return Ok(());
        };
        places(&more, rule)
            .try_for_each(|index| more.set(index, Hits::default(), 0))
            .context(NO_RESET)
    }

    /// The destinations that monitor mode let through, with their numbers of attempts.
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

    /// The counters since the start, over all CPUs.
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
            peers_forgotten: total(Counter::PeersForgotten)?,
        })
    }

    /// The number of verdicts since the start, over all CPUs.
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

    /// The traffic since the start, over all CPUs.
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

    /// A sum over all CPUs of a field of a tally.
    fn tallies<T: Sum>(&self, outcome: Outcome, class: Class, what: fn(&Tally) -> T) -> Result<T> {
        let cpus = self
            .tallies
            .get(&tally_index(outcome, class), 0)
            .context("cannot read the counters of calls and packets")?;
        let mut all: Vec<T> = cpus.iter().map(what).collect();
        if (outcome, class) == (Outcome::Sent, Class::Udp) {
            let counts = read_all::<RuleCounts>(IterableMap::map(&self.hits), cpus.len());
            let counts = counts.context(NO_HITS)?;
            all.extend(counts.iter().map(|counts| what(&counts.tally())));
        }
        Ok(all.into_iter().sum())
    }
}

/// The indices of a rule's counters in the map of further hits, one for each CPU.
fn places(more: &MoreHits, rule: u32) -> impl Iterator<Item = u32> + use<> {
    let end = more.len();
    (0..)
        .map(move |cpu| more_hits_index(rule, cpu))
        .take_while(move |index| *index < end)
}
