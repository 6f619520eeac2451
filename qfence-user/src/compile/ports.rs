//! Decides between the rules that contain a prefix: divides protocols and ports into pieces.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use qfence_common::{
    Action, Node, Protocol, Verdict,
    tree::port_query,
    verdict::{MANY, SELF},
};

use super::{
    DoesNotFit,
    membership::PrefixRules,
    most,
    tree::{TooMany, Tree},
};
use crate::policy::{
    Numbered, Prefix,
    rule::{Destination, Match, V4},
};

/// The verdict of a match (for `self`, see [`is_of_self`]), and the first and last of each interval of queries that it covers.
type Answer = (Verdict, Vec<(u32, u32)>);

/// The subtrees for protocols and ports of all prefixes. Prefixes with the same answers share a subtree.
pub(super) struct Ports<'a> {
    rules: &'a [Numbered],
    /// All distinct answers. Each match has the index of its answer.
    answers: Vec<Answer>,
    answer_of: Vec<Vec<usize>>,
    known: HashMap<(Vec<usize>, u32), Node>,
    /// Whether a verdict of the policy depends on `self`.
    knows_self: bool,
    /// Whether the policy allows any IPv4 address that has many receivers.
    allows_broadcasts: bool,
}

impl<'a> Ports<'a> {
    pub(super) fn new(rules: &'a [Numbered]) -> Self {
        let mut numbers: HashMap<Answer, usize> = HashMap::new();
        let mut answers = Vec::new();
        let mut number = |answer: Answer| {
            *numbers.entry(answer).or_insert_with_key(|answer| {
                answers.push(answer.clone());
                answers.len() - 1
            })
        };
        let answer_of = rules
            .iter()
            .map(|Numbered { rule, number: of }| {
                let verdict = Verdict::new(rule.action, *of);
                let verdict_of = |of: &Match| {
                    if of.is_self() {
                        verdict.with(SELF)
                    } else {
                        verdict
                    }
                };
                let matches = rule.matches.iter();
                matches
                    .map(|of| number((verdict_of(of), intervals(of))))
                    .collect()
            })
            .collect();
        Self {
            rules,
            answers,
            answer_of,
            known: HashMap::new(),
            knows_self: false,
            allows_broadcasts: false,
        }
    }

    /// Whether a verdict depends on `self`, as far as prefixes were visited.
    pub(super) fn knows_self(&self) -> bool {
        self.knows_self
    }

    /// Whether an IPv4 address with many receivers is allowed, as far as prefixes were visited.
    pub(super) fn allows_broadcasts(&self) -> bool {
        self.allows_broadcasts
    }

    /// The step of the tree for a prefix. All its verdicts get these flags.
    pub(super) fn step(
        &mut self,
        of_prefix: &PrefixRules<'_>,
        flags: u32,
        tree: &mut Tree,
    ) -> Result<Node, DoesNotFit> {
        let mut given = Vec::with_capacity(of_prefix.matches.len());
        for &(rule, index) in of_prefix.matches {
            let answer = self.answer_of[rule][index];
            // A repeated answer changes nothing, nor does an answer after one that covers everything.
            if given.last() != Some(&answer) {
                given.push(answer);
            }
            if self.answers[answer].1 == EVERYTHING {
                break;
            }
        }
        let allows = |answer: &usize| {
            let answer = &self.answers[*answer];
            answer.0.action() == Action::Allow && !is_of_self(answer)
        };
        if flags & MANY != 0 && V4.contains(&of_prefix.prefix) && given.iter().any(allows) {
            self.allows_broadcasts = true;
        }
        let key = (given, flags);
        if let Some(step) = self.known.get(&key) {
            return Ok(*step);
        }
        let pieces = with_self(|| key.0.iter().map(|&answer| &self.answers[answer]));
        self.knows_self |= pieces.iter().any(|(_, verdict)| verdict.has(SELF));
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(from, verdict)| (u64::from(from), Node::of_verdict(verdict.with(flags))))
            .collect();
        let step = tree
            .grow_ports(&pieces)
            .map_err(|too_many| self.does_not_fit(of_prefix, too_many))?;
        self.known.insert(key, step);
        Ok(step)
    }

    fn does_not_fit(&self, of_prefix: &PrefixRules<'_>, too_many: TooMany) -> DoesNotFit {
        let rules: BTreeSet<_> = of_prefix.matches.iter().map(|&(rule, _)| rule).collect();
        DoesNotFit {
            what: "their ports",
            of: name(of_prefix.prefix),
            pieces: too_many.pieces,
            rules: most(self.rules, rules, |rule| {
                let ports = rule.matches.iter().map(|of| of.ports.ranges().len());
                ports.sum()
            }),
        }
    }
}

fn name(prefix: Prefix) -> String {
    Destination::Prefix(prefix).to_string()
}

/// All queries.
pub(super) const EVERYTHING: [(u32, u32); 1] = [(0, u32::MAX)];

/// The first and last of each interval of queries that a match covers.
#[must_use]
pub fn intervals(of: &Match) -> Vec<(u32, u32)> {
    of.in_effect()
        .iter()
        .flat_map(|(protocol, ports)| {
            let protocol = *protocol;
            if protocol == Protocol::ANY {
                return EVERYTHING.to_vec();
            }
            let interval =
                |(first, last)| (port_query(protocol, first), port_query(protocol, last));
            if ports.is_every() {
                return vec![interval((0, u16::MAX))];
            }
            ports.bounds().map(interval).collect()
        })
        .collect()
}

/// Whether an answer is that of `self`: it allows what has a listener of the fence's own.
fn is_of_self(answer: &Answer) -> bool {
    answer.0.has(SELF)
}

/// Divides the queries into pieces with the same verdict. If the first answer is that of `self`, the first of the others
/// decides unless it denies and the listener is of the fence's own.
fn with_self<'a, A: Iterator<Item = &'a Answer>>(answers: impl Fn() -> A) -> Vec<(u32, Verdict)> {
    let others = pieces(answers().filter(|answer| !is_of_self(answer)));
    if !answers().any(is_of_self) {
        return others;
    }
    let first: BTreeMap<u32, Verdict> = pieces(answers()).into_iter().collect();
    let others: BTreeMap<u32, Verdict> = others.into_iter().collect();
    let starts: BTreeSet<u32> = first.keys().chain(others.keys()).copied().collect();
    let at = |pieces: &BTreeMap<u32, Verdict>, start| {
        let piece = pieces.range(..=start).next_back();
        piece.map_or(Verdict::NONE, |(_, verdict)| *verdict)
    };
    let mut merged: Vec<(u32, Verdict)> = starts
        .into_iter()
        .map(|start| {
            let (first, other) = (at(&first, start), at(&others, start));
            if first.has(SELF) && other.action() == Action::Deny {
                // The marker has the number of its rule as any verdict of the policy has.
                let rule = Verdict::from_bits(first.bits() & !SELF).rule();
                return (start, other.unless_self(rule));
            }
            (start, other)
        })
        .collect();
    merged.dedup_by_key(|(_, verdict)| *verdict);
    merged
}

/// Divides the queries into pieces with the same first answer, in order, each with its first query. The last match
/// must cover everything.
fn pieces<'a>(matches: impl Iterator<Item = &'a Answer>) -> Vec<(u32, Verdict)> {
    let mut found = BTreeMap::new();
    let mut open = Open::everything();
    for (verdict, intervals) in matches {
        for &interval in intervals {
            open.take(interval, |from| {
                found.insert(from, *verdict);
            });
        }
        if open.is_empty() {
            break;
        }
    }
    let mut pieces: Vec<(u32, Verdict)> = found.into_iter().collect();
    pieces.dedup_by_key(|(_, verdict)| *verdict);
    pieces
}

/// The queries that no match has covered yet: the first and last of separate intervals.
#[derive(Clone)]
pub(super) struct Open(BTreeMap<u32, u32>);

impl Open {
    pub(super) fn everything() -> Self {
        Self(EVERYTHING.into())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes an interval. Calls `taken` with the first query of each part that was not covered before.
    pub(super) fn take(&mut self, (first, last): (u32, u32), mut taken: impl FnMut(u32)) {
        // Only one interval can begin before it and overlap it.
        let before = self.0.range(..first).next_back();
        let before = before.map(|(&from, &to)| (from, to));
        let before = before.filter(|(_, to)| *to >= first);
        let within = self.0.range(first..=last).map(|(&from, &to)| (from, to));
        let parts: Vec<_> = before.into_iter().chain(within).collect();
        for (from, to) in parts {
            self.0.remove(&from);
            if from < first {
                self.0.insert(from, first - 1);
            }
            taken(from.max(first));
            if last < to {
                self.0.insert(last + 1, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(open: &mut Open, interval: (u32, u32)) -> Vec<u32> {
        let mut begins = Vec::new();
        open.take(interval, |from| begins.push(from));
        begins
    }

    #[test]
    fn what_is_taken_is_not_taken_again() {
        let mut open = Open::everything();
        assert_eq!(taken(&mut open, (10, 20)), [10]);
        assert_eq!(taken(&mut open, (15, 18)), [0; 0]);
        assert_eq!(taken(&mut open, (30, 40)), [30]);
        assert_eq!(taken(&mut open, (5, 35)), [5, 21]);
        assert_eq!(open.0, BTreeMap::from([(0, 4), (41, u32::MAX)]));
        assert_eq!(taken(&mut open, (0, 0)), [0]);
        assert_eq!(taken(&mut open, (u32::MAX, u32::MAX)), [u32::MAX]);
        assert_eq!(taken(&mut open, (0, u32::MAX)), [1, 41]);
        assert!(open.is_empty());
    }
}
