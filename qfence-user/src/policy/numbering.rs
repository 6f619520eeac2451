//! Numbers of rules: indices of the kernel's counters, and the names of rules in events.

use std::collections::{BTreeSet, HashMap};

use qfence_common::verdict::MAX_RULES;
use serde::{Deserialize, Serialize};

use super::{Numbered, rule::Rule};

/// The number of each rule of a policy, in the rules' order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    of: Vec<u32>,
    /// Where to look for the next free number. A freed number stays unused for as long as possible, because events
    /// may still have it.
    next: u32,
}

/// A policy has more rules than the kernel counts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policy has {rules} rules, and {MAX_RULES} fit: `{first}` ({source_of_first}) is the first \
     that does not; one rule of a profile can list many destinations"
)]
pub struct TooManyRules {
    /// The number of its rules.
    pub rules: usize,
    /// The first rule that gets no number.
    pub first: String,
    /// The source of that rule.
    pub source_of_first: String,
}

impl Numbers {
    /// The numbers, in the rules' order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.of.iter().copied()
    }

    /// Numbers `rules`. A rule of the previous policy keeps its number.
    pub(super) fn assign(
        &self,
        before: &[Numbered],
        rules: &[&Rule],
    ) -> Result<Self, TooManyRules> {
        if let Some(first) = rules.get(MAX_RULES as usize) {
            return Err(TooManyRules {
                rules: rules.len(),
                first: first.brief(),
                source_of_first: first.source.to_string(),
            });
        }
        // A rule can be in a policy twice, with a number for each.
        let mut known: HashMap<&Rule, Vec<u32>> = HashMap::new();
        for numbered in before.iter().rev() {
            known
                .entry(&numbered.rule)
                .or_default()
                .push(numbered.number);
        }
        let kept: Vec<Option<u32>> = rules
            .iter()
            .map(|rule| known.get_mut(rule).and_then(Vec::pop))
            .collect();
        let given_up: BTreeSet<u32> = before.iter().map(|numbered| numbered.number).collect();
        let mut taken: BTreeSet<u32> = kept.iter().flatten().copied().collect();
        let mut next = self.next;
        let mut free = || {
            let from_next = (0..MAX_RULES).map(|offset| (next + offset) % MAX_RULES);
            let is_fresh = |number: &u32| !taken.contains(number) && !given_up.contains(number);
            let number = from_next
                .clone()
                .find(is_fresh)
                .or_else(|| from_next.clone().find(|number| !taken.contains(number)))
                .unwrap_or(0);
            next = (number + 1) % MAX_RULES;
            taken.insert(number);
            number
        };
        let of = kept
            .into_iter()
            .map(|known| known.unwrap_or_else(&mut free))
            .collect();
        Ok(Self { of, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{rule::Source, testing::rule as parse_for_tests};

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| parse_for_tests(text)).collect()
    }

    fn numbered(rules: &[Rule], numbers: &Numbers) -> Vec<Numbered> {
        let numbered = |(rule, number): (&Rule, u32)| Numbered {
            number,
            rule: rule.clone(),
        };
        rules.iter().zip(numbers.iter()).map(numbered).collect()
    }

    fn assign(numbers: &Numbers, before: &[Numbered], rules: &[Rule]) -> Numbers {
        let rules: Vec<&Rule> = rules.iter().collect();
        numbers.assign(before, &rules).unwrap()
    }

    #[test]
    fn a_rule_keeps_its_number_and_a_new_one_gets_a_fresh_one() {
        let first = rules(&["allow dns", "deny host", "allow any"]);
        let numbers = assign(&Numbers::default(), &[], &first);
        assert_eq!(numbers.of, [0, 1, 2]);
        let before = numbered(&first, &numbers);
        let second = rules(&["allow lan", "deny host", "deny lan", "allow any"]);
        let numbers = assign(&numbers, &before, &second);
        assert_eq!(numbers.of, [3, 1, 4, 2]);
        let before = numbered(&second, &numbers);
        let third = assign(&numbers, &before, &first);
        assert_eq!(third.of, [5, 1, 2], "what was given up stays unused");
    }

    #[test]
    fn a_rule_that_stands_twice_has_two_numbers() {
        let twice = rules(&["deny lan", "deny lan"]);
        let numbers = assign(&Numbers::default(), &[], &twice);
        assert_eq!(numbers.of, [0, 1]);
        let again = assign(&numbers, &numbered(&twice, &numbers), &twice);
        assert_eq!(again.of, [0, 1]);
    }

    #[test]
    fn numbers_go_round_and_none_is_given_twice() {
        let all = |port: u32| -> Vec<Rule> {
            (0..MAX_RULES)
                .map(|index| {
                    parse_for_tests(&format!(
                        "deny tcp:10.{}.{}.1:{port}",
                        index / 256,
                        index % 256
                    ))
                })
                .collect()
        };
        let (one, two) = (all(1), all(2));
        let numbers = assign(&Numbers::default(), &[], &one);
        let numbers = assign(&numbers, &numbered(&one, &numbers), &two);
        let distinct: BTreeSet<u32> = numbers.iter().collect();
        assert_eq!(distinct.len(), MAX_RULES as usize);
        assert!(distinct.iter().all(|number| *number < MAX_RULES));
    }

    #[test]
    fn one_rule_too_many_is_named() {
        let mut many = vec![parse_for_tests("deny lan"); MAX_RULES as usize];
        many.push(Rule {
            source: Source::Flag {
                text: "--deny 10.0.0.1".into(),
            },
            ..parse_for_tests("deny 10.0.0.1")
        });
        let many: Vec<&Rule> = many.iter().collect();
        let error = Numbers::default().assign(&[], &many).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`deny 10.0.0.1` (--deny 10.0.0.1)"),
            "{error}"
        );
    }
}
