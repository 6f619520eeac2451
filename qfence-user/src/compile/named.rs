//! Rules by name: their table in the tree, and what they say of a name.
//!
//! The tree has no addresses of names. For each rule by name it has the protocols and ports, in groups, and for every rule
//! the order in which it is tried. See [`qfence_common::resolved`], which reads the table.

use std::collections::BTreeSet;

use qfence_common::{
    Action, Node, Verdict,
    resolved::{Grant, MAX_GROUPS},
    tree::NAMED_RULES,
};

use super::{
    DoesNotFit, most,
    ports::intervals,
    tree::{TooMany, Tree},
};
use crate::policy::{
    Numbered,
    domain::{DomainName, DomainPattern},
    rule::{Destination, Rule},
    set::SetName,
};

/// The first and last of each interval of queries of a group.
pub(super) type Group = Vec<(u32, u32)>;

/// Whether any rule is by name.
#[must_use]
pub fn has_names(rules: &[Numbered]) -> bool {
    let mut matches = rules.iter().flat_map(|numbered| &numbered.rule.matches);
    matches.any(|of| of.pattern().is_some())
}

/// Whether any rule allows a name.
pub(super) fn allow(rules: &[Numbered]) -> bool {
    rules
        .iter()
        .any(|numbered| !groups(&numbered.rule).is_empty())
}

/// The groups of ports of a rule that allows names: each once, in the order of their first names.
fn groups(rule: &Rule) -> Vec<Group> {
    let mut groups = Vec::new();
    if rule.action == Action::Deny {
        return groups;
    }
    for of in rule.matches.iter().filter(|of| of.pattern().is_some()) {
        let group = intervals(of);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// The protocols and ports of a grant, by the rules of a policy. Empty if no rule has it.
pub(super) fn group(rules: &[Numbered], grant: Grant) -> Group {
    let rule = rules.iter().find(|of| of.number == grant.rule());
    let mut groups = rule.map(|of| groups(&of.rule)).unwrap_or_default();
    match groups.get_mut(grant.group() as usize) {
        Some(group) => std::mem::take(group),
        None => Group::new(),
    }
}

/// Adds the table of rules to the tree, if any rule is by name.
pub(super) fn grow(rules: &[Numbered], tree: &mut Tree) -> Result<(), DoesNotFit> {
    if !has_names(rules) {
        return Ok(());
    }
    let end = rules.iter().map(|rule| rule.number as usize + 1).max();
    // The children below and above the slots are those of no rule.
    let mut children = vec![Node::NOWHERE; end.unwrap_or_default() + 2];
    for (rank, numbered) in (0..).zip(rules) {
        let rank = Node::of_verdict(Verdict::from_bits(rank));
        let groups = groups(&numbered.rule);
        if groups.len() >= MAX_GROUPS as usize {
            return Err(DoesNotFit {
                what: "the ports of its names",
                of: format!("`{}`", numbered.rule.brief()),
                pieces: groups.len(),
                rules: "one rule, and the others in further rules".to_owned(),
            });
        }
        let child = if groups.is_empty() {
            rank
        } else {
            table_of(numbered.number, rank, &groups, tree).map_err(|many| not_fit(rules, &many))?
        };
        children[numbered.number as usize + 1] = child;
    }
    let table = tree.table(0, children);
    tree.nodes[NAMED_RULES] = table.map_err(|many| not_fit(rules, &many))?;
    Ok(())
}

/// The table of a rule: its rank below the slots, and a slot for each group.
fn table_of(number: u32, rank: Node, groups: &[Group], tree: &mut Tree) -> Result<Node, TooMany> {
    let allow = Node::of_verdict(Verdict::new(Action::Allow, number));
    let mut children = vec![rank];
    for group in groups {
        children.push(tree.grow_ports(&pieces(group, allow))?);
    }
    children.push(Node::NOWHERE);
    tree.table(1, children)
}

/// Divides all queries by a group: `allow` within it, nothing elsewhere.
fn pieces(group: &[(u32, u32)], allow: Node) -> Vec<(u64, Node)> {
    let mut sorted = group.to_vec();
    sorted.sort_unstable();
    let mut pieces = Vec::new();
    let mut next = 0;
    for (first, last) in sorted {
        let (first, end) = (u64::from(first), u64::from(last) + 1);
        if first > next || pieces.is_empty() && first > 0 {
            pieces.push((next, Node::NOWHERE));
        }
        if first > next || pieces.last().is_none_or(|(_, node)| *node != allow) {
            pieces.push((first, allow));
        }
        next = next.max(end);
    }
    if next <= u64::from(u32::MAX) {
        pieces.push((next, Node::NOWHERE));
    }
    pieces
}

fn not_fit(rules: &[Numbered], many: &TooMany) -> DoesNotFit {
    DoesNotFit {
        what: "their names",
        of: "the ports".to_owned(),
        pieces: many.pieces,
        rules: most(rules, 0..rules.len(), |rule| {
            let names = rule.matches.iter().filter(|of| of.pattern().is_some());
            names.count()
        }),
    }
}

/// What the rules of a policy say of names.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// The names of rules, in the order in which they are tried, each with its rule's number and grant. `None` denies.
    patterns: Vec<(DomainPattern, u32, Option<Grant>)>,
    /// The rule that decides on the look-up of other names, and whether it allows it.
    others: (u32, bool),
}

/// What a policy says of the look-up of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The number of the rule that decides.
    pub rule: u32,
    /// Whether the name may be looked up.
    pub is_allowed: bool,
    /// The grants of its addresses, by the rules that name it. Empty if the name may be looked up because the policy allows
    /// destinations that it does not name: then addresses are judged by themselves.
    pub grants: Vec<Grant>,
}

impl Lookups {
    /// Those of a policy's rules, in the order in which they are tried.
    #[must_use]
    pub fn new(rules: &[Numbered]) -> Self {
        let mut patterns = Vec::new();
        for Numbered { number, rule } in rules {
            let groups = groups(rule);
            for of in &rule.matches {
                let Some(pattern) = of.pattern() else {
                    continue;
                };
                let group = groups.iter().position(|group| *group == intervals(of));
                let group = group.and_then(|group| u32::try_from(group).ok());
                let grant = group.and_then(|group| Grant::new(*number, group));
                patterns.push((pattern.clone(), *number, grant));
            }
        }
        let open = rules.iter().find(|numbered| is_open(&numbered.rule));
        let last = rules.last().map_or(0, |numbered| numbered.number);
        Self {
            patterns,
            others: open.map_or((last, false), |open| (open.number, true)),
        }
    }

    /// What the policy says of the look-up of a name. The first rule that names it decides; if that allows it, all later
    /// ones that allow it grant their ports as well, up to the first that denies it.
    #[must_use]
    pub fn permission(&self, name: &DomainName) -> Permission {
        let mut first = None;
        let mut grants = BTreeSet::new();
        for (pattern, rule, grant) in &self.patterns {
            if !pattern.matches(name) {
                continue;
            }
            first.get_or_insert(*rule);
            match grant {
                Some(grant) => grants.insert(*grant),
                None => break,
            };
        }
        match first {
            Some(rule) => Permission {
                rule,
                is_allowed: !grants.is_empty(),
                grants: grants.into_iter().collect(),
            },
            None => Permission {
                rule: self.others.0,
                is_allowed: self.others.1,
                grants: Vec::new(),
            },
        }
    }
}

impl Lookups {
    /// Whether one of these names, as they were looked up, has a grant.
    pub fn grants<'a>(&self, names: impl IntoIterator<Item = &'a str>, grant: Grant) -> bool {
        names.into_iter().any(|name| {
            let name = DomainName::of_wire(name);
            name.is_ok_and(|name| self.permission(&name).grants.contains(&grant))
        })
    }
}

/// Whether a rule allows destinations of every address, or of the whole internet, on any port: then names that no rule has
/// may be looked up.
fn is_open(rule: &Rule) -> bool {
    rule.action == Action::Allow
        && rule.matches.iter().any(|of| match &of.destination {
            Destination::Set(set) => matches!(set, SetName::Any | SetName::Internet),
            Destination::Prefix(prefix) => {
                prefix.prefix_len() == 0 || *prefix == crate::policy::rule::V4
            }
            Destination::Name(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use super::{super::ports::EVERYTHING, *};

    const ALLOW: Node = Node::of_verdict(Verdict::new(Action::Allow, 7));
    const NOT: Node = Node::NOWHERE;

    #[test]
    fn a_group_divides_all_queries() {
        for (group, expected) in [
            (&EVERYTHING[..], vec![(0, ALLOW)]),
            (&[(5, 7)], vec![(0, NOT), (5, ALLOW), (8, NOT)]),
            (&[(5, 7), (8, 9)], vec![(0, NOT), (5, ALLOW), (10, NOT)]),
            (
                &[(20, 30), (5, 7)],
                vec![(0, NOT), (5, ALLOW), (8, NOT), (20, ALLOW), (31, NOT)],
            ),
            (&[(5, 9), (6, 7)], vec![(0, NOT), (5, ALLOW), (10, NOT)]),
            (&[(0, 7)], vec![(0, ALLOW), (8, NOT)]),
            (&[(9, u32::MAX)], vec![(0, NOT), (9, ALLOW)]),
        ] {
            assert_eq!(pieces(group, ALLOW), expected, "{group:?}");
        }
    }
}
