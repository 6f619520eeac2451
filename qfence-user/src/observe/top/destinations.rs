//! The most frequent attempts of a record, by destination, and the names that led there.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use crate::{
    base::printable::printable,
    record::{
        line::{Body, Line, Lookup},
        operation::Operation,
    },
    stored_policy::resolved_names::NamesOfAddresses,
};

/// A destination that was attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The destination, socket or device, as text; or the look-up.
    pub what: String,
    /// The names that led to the destination, as text.
    pub names: String,
    /// The workload that attempted it, if others have started that.
    pub workload: Option<Arc<str>>,
    /// The rule that refused it.
    pub rule: String,
    /// The number of attempts in the record.
    pub count: u64,
}

/// The destinations of lines, by destination, workload and rule, the most frequent first. Their names are those on record, and
/// those that the fence has looked up.
pub fn most_frequent<'a>(
    lines: impl Iterator<Item = &'a Line>,
    looked_up: &'a NamesOfAddresses,
) -> Vec<Destination> {
    let mut all: BTreeMap<_, (Vec<&str>, u64)> = BTreeMap::new();
    for line in lines {
        let (what, rule, names, count) = match &line.body {
            Body::Attempt(attempt) | Body::Repeats(attempt) => {
                let of = &attempt.operation;
                let what = of.without_names().to_string();
                (what, &*attempt.rule, names(of, looked_up), line.count)
            }
            Body::Lookup(lookup) if is_refused(lookup) => {
                let rule = lookup.rule.as_deref().unwrap_or("no rule");
                (of_lookup(lookup), rule, Vec::new(), lookup.lookups)
            }
            _ => continue,
        };
        let (known, total) = all.entry((what, line.workload.as_ref(), rule)).or_default();
        *total += count;
        for name in names {
            if !known.contains(&name) {
                known.push(name);
            }
        }
    }
    let mut destinations: Vec<_> = all
        .into_iter()
        .map(|((what, workload, rule), (names, count))| Destination {
            what,
            names: printable(names.join(", ").as_bytes()),
            workload: workload.cloned(),
            rule: rule.to_owned(),
            count,
        })
        .collect();
    destinations.sort_by_key(|destination| Reverse(destination.count));
    destinations
}

/// The names that led to the destination of an attempt: those on record first.
pub fn names<'a>(of: &'a Operation, looked_up: &'a NamesOfAddresses) -> Vec<&'a str> {
    let on_record = of.names().iter().map(|name| &**name);
    let found = of.address().and_then(|address| looked_up.get(&address));
    let found = found.into_iter().flatten().map(String::as_str);
    on_record.chain(found).collect()
}

fn is_refused(lookup: &Lookup) -> bool {
    lookup.verdict == "denied" || lookup.verdict == "would-deny"
}

/// `lookup evil.example A`.
fn of_lookup(lookup: &Lookup) -> String {
    match (&lookup.name, &lookup.kind) {
        (Some(name), Some(kind)) => {
            let text = format!("lookup {name} {kind}");
            printable(text.as_bytes())
        }
        _ => "lookup of other names".to_owned(),
    }
}
