//! Adds the lines of look-ups: the first of a kind at once, the others counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Body, Reader};
use crate::{
    policy::names::{RuleName, UNNAMEABLE},
    record::{
        budget::Budget,
        line::Lookup,
        lookups::{LookedUp, LookupReceiver},
    },
};

/// The most kinds of look-ups that are counted apart, and that are known to have had a line.
const KINDS: usize = 2048;

/// What is known of the fence's look-ups.
pub(super) struct Lookups {
    receiver: LookupReceiver,
    /// The lines of look-ups have a budget of their own, so that they take no room from attempts.
    budget: Budget,
    known: BTreeSet<Kind>,
    counted: BTreeMap<Kind, (LookedUp, u64)>,
    /// The look-ups that are counted without their names.
    others: u64,
}

/// What look-ups of one kind have in common.
type Kind = (&'static str, Arc<str>, Arc<str>, Option<u32>);

fn kind_of(lookup: &LookedUp) -> Kind {
    let LookedUp {
        verdict,
        name,
        kind,
        rule,
        ..
    } = lookup;
    (*verdict, name.clone(), kind.clone(), *rule)
}

impl Lookups {
    pub(super) fn new(receiver: LookupReceiver) -> Self {
        Self {
            receiver,
            budget: Budget::default(),
            known: BTreeSet::new(),
            counted: BTreeMap::new(),
            others: 0,
        }
    }

    pub(super) fn receiver(&self) -> &LookupReceiver {
        &self.receiver
    }

    /// Takes what has come. Returns the first look-ups of their kinds, as far as there is room for their lines.
    fn take(&mut self) -> Vec<LookedUp> {
        let (lookups, lost) = self.receiver.take();
        self.others += lost;
        let mut firsts = Vec::new();
        for lookup in lookups {
            let kind = kind_of(&lookup);
            let is_first = !self.known.contains(&kind);
            if is_first && self.budget.has_event() {
                if self.known.len() >= KINDS {
                    self.known.clear();
                }
                self.known.insert(kind);
                // Its length is not known yet.
                self.budget.take(0);
                firsts.push(lookup);
            } else if self.counted.len() < KINDS || self.counted.contains_key(&kind) {
                let (latest, count) = self.counted.entry(kind).or_insert((lookup.clone(), 0));
                *latest = lookup;
                *count += 1;
            } else {
                self.others += 1;
            }
        }
        firsts
    }

    /// Takes the counts for which there is room, each with whether its kind has had a line, and the number of look-ups without
    /// names. All of them if it is the end.
    fn counts(&mut self, is_end: bool) -> (Vec<(LookedUp, u64, bool)>, u64) {
        let mut counts = Vec::new();
        if is_end || !self.budget.is_saving() {
            for (kind, count) in std::mem::take(&mut self.counted) {
                if self.budget.has_summary() {
                    self.budget.take(0);
                    let is_known = !self.known.insert(kind);
                    counts.push((count.0, count.1, is_known));
                } else {
                    self.others += count.1;
                }
            }
        }
        self.budget.renew();
        let is_told = is_end || !self.budget.is_saving();
        let others = if is_told {
            std::mem::take(&mut self.others)
        } else {
            0
        };
        (counts, others)
    }
}

impl Reader {
    /// The look-ups that wait, if the fence has a resolver.
    #[must_use]
    pub fn lookups(&self) -> Option<&LookupReceiver> {
        self.lookups.as_ref().map(Lookups::receiver)
    }

    /// Adds the lines of look-ups that are the first of their kind.
    pub(super) fn tell_first_lookups(&mut self) {
        let firsts = self.lookups.as_mut().map(Lookups::take);
        for lookup in firsts.into_iter().flatten() {
            self.tell_lookup(&lookup, 1, false);
        }
    }

    /// Adds the lines of the other look-ups. To be called once per second.
    pub(super) fn tell_lookups(&mut self, is_end: bool) {
        self.tell_first_lookups();
        let Some(lookups) = &mut self.lookups else {
            return;
        };
        let (counts, others) = lookups.counts(is_end);
        for (lookup, count, is_known) in counts {
            self.tell_lookup(&lookup, count, is_known);
        }
        if others > 0 {
            let lookup = Lookup {
                verdict: "denied".to_owned(),
                name: None,
                kind: None,
                addresses: Vec::new(),
                struck: Vec::new(),
                error: None,
                rule: None,
                comment: None,
                lookups: others,
                again: false,
            };
            let line = self.line(Timestamp::now(), Body::Lookup(lookup.into()), 0);
            self.push(line);
        }
    }

    fn tell_lookup(&mut self, lookup: &LookedUp, count: u64, is_known: bool) {
        let rule = match lookup.rule {
            Some(rule) => self.names.now().name(rule),
            None => RuleName {
                rule: UNNAMEABLE.into(),
                comment: None,
            },
        };
        let lookup = Lookup {
            verdict: lookup.verdict.to_owned(),
            name: Some(lookup.name.clone()),
            kind: Some(lookup.kind.clone()),
            addresses: lookup.addresses.clone(),
            struck: lookup.struck.clone(),
            error: lookup.error.clone(),
            rule: Some(rule.rule),
            comment: rule.comment,
            lookups: count,
            again: is_known,
        };
        // These lines are no attempts, so they count none.
        let line = self.line(Timestamp::now(), Body::Lookup(lookup.into()), 0);
        self.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::lookups::{LookupSender, channel};

    fn lookups() -> (LookupSender, Lookups) {
        let (sender, receiver) = channel().unwrap();
        (sender, Lookups::new(receiver))
    }

    fn send(sender: &LookupSender, name: &str, kind: &str) {
        sender.send(LookedUp {
            verdict: "denied",
            name: name.into(),
            kind: kind.into(),
            rule: Some(1),
            addresses: Vec::new(),
            struck: Vec::new(),
            error: None,
        });
    }

    #[test]
    fn the_first_of_a_kind_is_told_at_once_and_others_are_counted() {
        let (sender, mut lookups) = lookups();
        for kind in ["A", "AAAA", "A", "A"] {
            send(&sender, "a.example.org", kind);
        }
        assert_eq!(lookups.take().len(), 2);
        let (counts, others) = lookups.counts(false);
        assert_eq!((counts.len(), counts[0].1, others), (1, 2, 0));
        assert!(counts[0].2, "there is a line about it");
        send(&sender, "a.example.org", "A");
        assert!(lookups.take().is_empty());
        assert_eq!(lookups.counts(false).0.len(), 1);
        assert_eq!(lookups.counts(false), (Vec::new(), 0));
    }

    #[test]
    fn all_look_ups_of_a_flood_are_counted_in_bounded_memory() {
        let (sender, mut lookups) = lookups();
        let mut told = 0;
        for number in 0..100_000 {
            send(&sender, &format!("n{number}.example.org"), "A");
            if number % 1000 == 999 {
                told += lookups.take().len() as u64;
                let (counts, others) = lookups.counts(number == 99_999);
                told += counts.iter().map(|(_, count, _)| count).sum::<u64>() + others;
                assert!(lookups.known.len() <= 2 * KINDS && lookups.counted.len() <= KINDS);
            }
        }
        assert_eq!(told, 100_000);
    }
}
