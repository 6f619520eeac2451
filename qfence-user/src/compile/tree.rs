//! Decides between rules that hold one prefix: cuts protocols and ports into pieces, and makes a tree
//! of the cuts.

use std::collections::{BTreeMap, HashMap};

use qfence_common::{
    Entry, Node, Protocol, Verdict,
    decide::query,
    entry::{END, MAX_DEPTH},
};

use super::membership::{Place, Which};
use crate::policy::{Numbered, Prefix, rule::Match};

/// How many boundaries a balanced tree of the greatest depth has.
const MAX_BOUNDARIES: usize = (1 << MAX_DEPTH) - 1;

/// The rules that hold a prefix name more ports than a tree has room for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the rules for {prefix} have {boundaries} boundaries between ports, and {MAX_BOUNDARIES} fit: \
     name fewer ports in {rules}"
)]
pub struct TooManyBoundaries {
    /// The prefix.
    pub prefix: Prefix,
    /// How many there are.
    pub boundaries: usize,
    /// The rules, as they are written.
    pub rules: String,
}

/// What a match makes of the queries it is about, as first and last of each interval.
type Say = (Verdict, Vec<(u32, u32)>);

/// The trees for all prefixes; where the same is said again, it is the same tree.
pub(super) struct Trees<'a> {
    rules: &'a [Numbered],
    nodes: Vec<Node>,
    /// All that is said, once each, and at the place of each match the number of what it says.
    says: Vec<Say>,
    said_by: Vec<Vec<usize>>,
    known: HashMap<Vec<usize>, Entry>,
}

impl<'a> Trees<'a> {
    pub(super) fn new(rules: &'a [Numbered]) -> Self {
        let mut numbers: HashMap<Say, usize> = HashMap::new();
        let mut says = Vec::new();
        let mut number = |say: Say| {
            *numbers.entry(say).or_insert_with_key(|say| {
                says.push(say.clone());
                says.len() - 1
            })
        };
        let said_by = rules
            .iter()
            .map(|Numbered { rule, number: of }| {
                let verdict = Verdict::new(rule.action, *of);
                let matches = rule.matches.iter();
                matches.map(|of| number((verdict, intervals(of)))).collect()
            })
            .collect();
        Self {
            rules,
            nodes: Vec::new(),
            says,
            said_by,
            known: HashMap::new(),
        }
    }

    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// The entry of a prefix; its flags are not set.
    pub(super) fn entry(&mut self, place: &Place<'_>) -> Result<Entry, TooManyBoundaries> {
        let mut said = Vec::with_capacity(place.matches.len());
        let mut matches = place.matches;
        for (at, &(rule, index)) in place.matches.iter().enumerate() {
            let say = self.said_by[rule][index];
            // What was just said changes nothing, and neither does what comes after everything.
            if said.last() != Some(&say) {
                said.push(say);
            }
            if self.says[say].1 == EVERYTHING {
                matches = &place.matches[..=at];
                break;
            }
        }
        if let Some(entry) = self.known.get(&said) {
            return Ok(*entry);
        }
        let pieces = pieces(said.iter().map(|&say| &self.says[say]));
        let mut entry = Entry::EMPTY;
        if let Some((&(_, lowest), rest)) = pieces.split_first() {
            if rest.len() > MAX_BOUNDARIES {
                return Err(self.too_many(place.prefix, matches, rest.len()));
            }
            entry.verdict = lowest;
            entry.root = self.grow(rest);
        }
        self.known.insert(said, entry);
        Ok(entry)
    }

    /// Adds a balanced tree of boundaries in order; returns its root.
    fn grow(&mut self, boundaries: &[(u32, Verdict)]) -> u32 {
        let middle = boundaries.len() / 2;
        let Some(&(from, verdict)) = boundaries.get(middle) else {
            return END;
        };
        let below = self.grow(&boundaries[..middle]);
        let above = self.grow(&boundaries[middle + 1..]);
        self.nodes.push(Node {
            from,
            verdict,
            below,
            above,
        });
        // Past 4 billion nodes there is no memory for the map.
        u32::try_from(self.nodes.len() - 1).unwrap_or(END - 1)
    }

    fn too_many(&self, prefix: Prefix, matches: &[Which], boundaries: usize) -> TooManyBoundaries {
        let mut rules: Vec<_> = matches.iter().map(|&(rule, _)| rule).collect();
        rules.dedup();
        // Those with the most ports first: they are at fault.
        rules.sort_by_key(|&rule| {
            let matches = &self.rules[rule].rule.matches;
            let ports = matches.iter().map(|of| of.ports.ranges().len());
            std::cmp::Reverse(ports.sum::<usize>())
        });
        let named: Vec<_> = rules
            .iter()
            .take(3)
            .map(|&rule| {
                format!(
                    "`{}` ({})",
                    self.rules[rule].rule.brief(),
                    self.rules[rule].rule.source
                )
            })
            .collect();
        TooManyBoundaries {
            prefix,
            boundaries,
            rules: named.join(", "),
        }
    }
}

/// The whole space of queries.
pub(super) const EVERYTHING: [(u32, u32); 1] = [(0, u32::MAX)];

/// The queries that a match is about, as first and last of each interval.
pub(super) fn intervals(of: &Match) -> Vec<(u32, u32)> {
    of.in_effect()
        .iter()
        .flat_map(|(protocol, ports)| {
            let protocol = *protocol;
            if protocol == Protocol::ANY {
                return EVERYTHING.to_vec();
            }
            let interval = |(first, last)| (query(protocol, first), query(protocol, last));
            if ports.is_every() {
                return vec![interval((0, u16::MAX))];
            }
            ports.bounds().map(interval).collect()
        })
        .collect()
}

/// Cuts the space of queries into the pieces on which the first of the matches that has a query says the
/// same: where each begins, and what it says, in order. All of the space is matched by the last.
fn pieces<'a>(matches: impl Iterator<Item = &'a Say>) -> Vec<(u32, Verdict)> {
    let mut found = BTreeMap::new();
    let mut open = EVERYTHING.to_vec();
    for (verdict, intervals) in matches {
        for &interval in intervals {
            open = take(&open, interval, |from| {
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

/// What is left of `open` without `interval`; tells the beginning of each part that is taken.
pub(super) fn take(
    open: &[(u32, u32)],
    (first, last): (u32, u32),
    mut taken: impl FnMut(u32),
) -> Vec<(u32, u32)> {
    let mut rest = Vec::with_capacity(open.len() + 1);
    for &(from, to) in open {
        if last < from || to < first {
            rest.push((from, to));
            continue;
        }
        if from < first {
            rest.push((from, first - 1));
        }
        taken(from.max(first));
        if last < to {
            rest.push((last + 1, to));
        }
    }
    rest
}
