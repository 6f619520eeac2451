//! Suggests a profile from the sightings of monitor mode.

mod targets;

use std::fmt::Write as _;

use qfence_common::{Action, Protocol, Sighting};
use targets::{Target, named, targets};

pub use self::targets::Found;
use crate::{
    base::printable::is_unprintable,
    policy::{
        Policy,
        rule::{Match, Source},
    },
};

/// How many of the most frequent matches get a rule of their own. The others share one rule, since a policy has room
/// for [`qfence_common::verdict::MAX_RULES`] rules.
const ALONE: usize = 128;

/// How many names that were only looked up are listed.
const LISTED: usize = 64;

/// A profile, as TOML, that allows the sightings, with their numbers as comments, and otherwise has the rules of the fence's
/// own policy. `unlisted` is the number of sightings for which there was no room. An address that the fence looked up is
/// suggested by its names in `found`, which is what the fence's resolver found; `None` without a resolver.
#[must_use]
pub fn suggest(
    fence: &str,
    policy: Option<&Policy>,
    seen: &[(Sighting, u64)],
    unlisted: u64,
    found: Option<&Found<'_>>,
) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!(
        "# Destinations that monitor mode allowed for the fence {fence}, although its policy denies them."
    ));
    line(
        "# Review each rule before you use it: it shows only that a process in the fence tried to reach a destination.",
    );
    if unlisted > 0 {
        line(&format!(
            "# INCOMPLETE: {unlisted} more attempts went to destinations for which there was no room."
        ));
    }
    let default = policy.map_or(Action::Allow, |policy| {
        policy
            .default
            .as_ref()
            .unwrap_or(&policy.profile.default)
            .action
    });
    line(&format!("default = {}", quoted(word(default))));
    let mut own = policy.map_or_else(Vec::new, Policy::rules);
    // A policy with rules by name has this one of itself.
    own.retain(|numbered| numbered.rule.source != Source::Names);
    allow(&mut line, seen, found);
    if let Some((_default, own)) = own.split_last()
        && !own.is_empty()
    {
        line("");
        line("# The rules of the fence, in their order.");
        for numbered in own {
            let rule = &numbered.rule;
            let matches: Vec<_> = rule
                .matches
                .iter()
                .map(|of| quoted(&of.to_string()))
                .collect();
            line("");
            line("[[rule]]");
            line(&format!("{} = [{}]", word(rule.action), matches.join(", ")));
            if let Some(comment) = &rule.comment {
                line(&format!("comment = {}", quoted(comment)));
            }
        }
    }
    out
}

/// What a fence was allowed to reach and does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// The number of calls or packets to destinations for which there was no room.
    pub others: u64,
    /// How often a destination was forgotten to make room for others.
    pub forgotten: u64,
}

/// A profile, as TOML, that allows only the destinations that were let through, with their numbers of calls or packets as
/// comments. `found` is as for [`suggest`].
#[must_use]
pub fn suggest_allowed(
    fence: &str,
    seen: &[(Sighting, u64)],
    unlisted: Unlisted,
    found: Option<&Found<'_>>,
) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!(
        "# Destinations that the fence {fence} was allowed to reach, and nothing else."
    ));
    line(
        "# Review each rule before you use it: it shows only that a process in the fence has reached a destination.",
    );
    let Unlisted { others, forgotten } = unlisted;
    if others > 0 {
        line(&format!(
            "# INCOMPLETE: {others} more calls or packets went to destinations for which there was no room."
        ));
    }
    if forgotten > 0 {
        line(&format!(
            "# INCOMPLETE: a destination without traffic was forgotten {} to make room for others. Those that were not \
             reached again are not listed; the record may have them.",
            times(forgotten)
        ));
    }
    line(&format!("default = {}", quoted(word(Action::Deny))));
    allow(&mut line, seen, found);
    out
}

/// Adds rules that allow the destinations. The numbers are comments of the file and none of the rules, which are in logs.
fn allow(line: &mut impl FnMut(&str), seen: &[(Sighting, u64)], found: Option<&Found<'_>>) {
    let (targets, without) = targets(seen, found);
    let remarks = |line: &mut dyn FnMut(&str), target: &Target| {
        line(&format!("# Seen {}.", times(target.count)));
        for remark in &target.remarks {
            line(&format!("# {remark}"));
        }
        if may_be_sorting(target, &targets) {
            line(SORTING);
        }
    };
    let (often, seldom) = targets.split_at(targets.len().min(ALONE));
    for target in often {
        line("");
        remarks(line, target);
        line("[[rule]]");
        let matches = target.matches.iter().map(|of| quoted(&of.to_string()));
        line(&match &matches.collect::<Vec<_>>()[..] {
            [one] => format!("allow = {one}"),
            several => format!("allow = [{}]", several.join(", ")),
        });
    }
    if !seldom.is_empty() {
        line("");
        line("# Seen less often than the others.");
        line("[[rule]]");
        line("allow = [");
        for target in seldom {
            remarks(&mut |text: &str| line(&format!("  {text}")), target);
            for of in &target.matches {
                line(&format!("  {},", quoted(&of.to_string())));
            }
        }
        line("]");
    }
    for (target, count) in without {
        line("");
        line(&format!(
            "# No rule can match only port 0: {target}, seen {}.",
            times(count)
        ));
    }
    match found {
        Some(found) => only_looked_up(line, &found.only_looked_up(&targets)),
        None => {
            line("");
            line(
                "# The names behind addresses are not known: the fence has no resolver. It has one if it is started with a rule",
            );
            line(
                "# by name, whatever the name is: `qfence-user exec --monitor --allow names.invalid ...`.",
            );
        }
    }
}

/// Adds the names that were looked up and led to nothing that was seen.
fn only_looked_up(line: &mut impl FnMut(&str), names: &[String]) {
    if names.is_empty() {
        return;
    }
    line("");
    line("# Also looked up, but nothing was seen at their addresses:");
    for name in names.iter().take(LISTED) {
        line(&format!("#   {name}"));
    }
    if names.len() > LISTED {
        line(&format!("#   and {} more", names.len() - LISTED));
    }
}

/// A remark on a rule that is perhaps not needed.
const SORTING: &str =
    "# Try without: C libraries connect UDP sockets to sort addresses, and send nothing.";

/// Whether a rule for UDP may be due to look-ups alone: the same ports were reached by TCP, and getaddrinfo(3) connects UDP
/// sockets to the address and port that it returns.
fn may_be_sorting(of: &Target, targets: &[Target]) -> bool {
    let by_tcp: Vec<Match> = of
        .matches
        .iter()
        .map(|of| Match {
            protocol: named(Protocol::TCP.0),
            ..of.clone()
        })
        .collect();
    let is_udp = |of: &Match| of.protocol == named(Protocol::UDP.0);
    of.matches.iter().all(is_udp) && targets.iter().any(|other| other.matches == by_tcp)
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    }
}

/// A text as a TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            plain if !is_unprintable(plain) => out.push(plain),
            other => {
                let _ = match u32::from(other) {
                    number @ 0..=0xffff => write!(out, "\\u{number:04X}"),
                    number => write!(out, "\\U{number:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
