//! Selects lines of a record.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use qfence_common::{Action, LookupPath, Protocol, tree::port_query};

use super::line::{Allowed, Attempt, Body, Destination, Line, Lookup};
use crate::{
    compile::{Compiled, compile, queries},
    policy::{
        Numbered, Sets,
        domain::{DomainName, DomainPattern},
        given_default,
        protocol::protocol_number,
        rule::{Match, Rule, Source},
    },
    record::operation::Operation,
};

/// The earliest time of the selected lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(Timestamp);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse() {
            return Ok(Self(time));
        }
        let ago: SignedDuration = text.parse().map_err(|_| {
            "give a time such as 2026-01-31T12:00:00Z, or an age such as 90s, 10m, 2h".to_owned()
        })?;
        Timestamp::now()
            .checked_sub(ago.abs())
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// Which destinations are selected.
#[derive(Debug)]
enum Wanted {
    /// Those of an address, a prefix or a set.
    Addresses(Compiled),
    /// Those to which a name led, on these protocols and ports; and look-ups of the name.
    Name(DomainPattern, Vec<(u32, u32)>),
}

/// Which lines are selected.
#[derive(Debug, Default)]
pub struct Filter {
    since: Option<Since>,
    destination: Option<Wanted>,
    workload: Option<String>,
}

impl Filter {
    /// Selects lines since a time, and attempts to reach a destination, or to look it up. `sets` has the members of the sets.
    ///
    /// # Errors
    /// If the destination does not fit into a policy.
    pub fn new(since: Option<Since>, destination: Option<&Match>, sets: &Sets) -> Result<Self> {
        let compiled = |of: &Match| {
            let wanted = Rule {
                action: Action::Allow,
                matches: vec![of.clone()],
                comment: None,
                source: Source::Flag {
                    text: format!("--dest {of}"),
                },
            };
            let rules = [(1, wanted), (0, given_default(Action::Deny))];
            let rules = rules.map(|(number, rule)| Numbered { number, rule });
            compile(&rules, sets, false).context("--dest")
        };
        let wanted = |of: &Match| match of.pattern() {
            Some(pattern) => Ok(Wanted::Name(pattern.clone(), queries(of))),
            None => compiled(of).map(Wanted::Addresses),
        };
        Ok(Self {
            since,
            destination: destination.map(wanted).transpose()?,
            workload: None,
        })
    }

    /// Selects, of these lines, the attempts of a workload: it in words, or its name, or its id.
    #[must_use]
    pub fn of_workload(mut self, workload: Option<String>) -> Self {
        self.workload = workload;
        self
    }

    /// Whether the line is selected.
    #[must_use]
    pub fn wants(&self, line: &Line) -> bool {
        if self.since.is_some_and(|Since(since)| line.time < since) {
            return false;
        }
        if let Some(wanted) = &self.workload
            && line.body.is_of_one()
            && !line
                .workload
                .as_deref()
                .is_some_and(|words| is_named(words, wanted))
        {
            return false;
        }
        let Some(destination) = &self.destination else {
            return true;
        };
        match &line.body {
            Body::Attempt(attempt) | Body::Repeats(attempt) => is_to(attempt, destination),
            Body::Allowed(allowed) | Body::Traffic(allowed) => was_to(allowed, destination),
            Body::Lookup(lookup) => is_looked_up(lookup, destination),
            // The destinations of these attempts are not known.
            Body::Folded { .. } | Body::Open { .. } | Body::Lost | Body::Dropped { .. } => true,
        }
    }
}

/// Whether a workload has this name: `web.service`, `web`, `unit web.service`, or an id of a container that begins with the one
/// that is shown.
fn is_named(words: &str, wanted: &str) -> bool {
    if words == wanted {
        return true;
    }
    let name = words.split_once(' ').map_or(words, |(_, name)| name);
    if let Some((id, _engine)) = name
        .split_once(" (")
        .filter(|_| words.starts_with("container "))
    {
        return wanted == id || (id.len() >= 12 && wanted.starts_with(id));
    }
    let unit = name.strip_suffix(".service").unwrap_or(name);
    name == wanted || unit == wanted
}

/// Whether a look-up is one of the name. The names of a line about many are not known.
fn is_looked_up(lookup: &Lookup, wanted: &Wanted) -> bool {
    match (wanted, &lookup.name) {
        (Wanted::Addresses(_), _) => false,
        (Wanted::Name(..), None) => true,
        (Wanted::Name(pattern, _), Some(name)) => has_name(pattern, name),
    }
}

fn has_name(pattern: &DomainPattern, name: &str) -> bool {
    DomainName::of_wire(name).is_ok_and(|name| pattern.matches(&name))
}

fn was_to(allowed: &Allowed, wanted: &Wanted) -> bool {
    match &allowed.destination {
        Destination::One {
            protocol,
            destination,
            port,
            names,
            ..
        } => is_destination(protocol, *port, [Some(*destination), None], names, wanted),
        // Their destinations are not known.
        Destination::Several { .. } => true,
    }
}

fn is_to(attempt: &Attempt, wanted: &Wanted) -> bool {
    let Operation::Destination {
        protocol,
        destination,
        port,
        names,
    } = &attempt.operation
    else {
        return false;
    };
    let addresses = [Some(*destination), attempt.dialled];
    is_destination(protocol, *port, addresses, names, wanted)
}

fn is_destination(
    protocol: &str,
    port: u32,
    addresses: [Option<IpAddr>; 2],
    names: &[Arc<str>],
    wanted: &Wanted,
) -> bool {
    let (Some(protocol), Ok(port)) = (protocol_number(protocol), u16::try_from(port)) else {
        return false;
    };
    let protocol = Protocol(protocol);
    match wanted {
        Wanted::Addresses(compiled) => addresses.into_iter().flatten().any(|address| {
            let verdict = compiled.decide(LookupPath::Address, protocol, address, port);
            verdict.action() == Action::Allow
        }),
        Wanted::Name(pattern, intervals) => {
            let query = port_query(protocol, port);
            let is_in = |(first, last): &(u32, u32)| (*first..=*last).contains(&query);
            intervals.iter().any(is_in) && names.iter().any(|name| has_name(pattern, name))
        }
    }
}

#[cfg(test)]
mod tests;
