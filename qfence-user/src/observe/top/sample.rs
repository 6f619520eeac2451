//! The current data of fences, from the kernel and /run.

use std::time::Instant;

use anyhow::Result;

use crate::{
    fence::registry::{Condition, Fences},
    kernel::{has_resolver, snapshot::Snapshot},
    record::line::Line,
    stored_policy::resolved_names::{NamesOfAddresses, refused},
};

/// All fences at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The time of the sample.
    pub at: Instant,
    /// The fences, by name.
    pub fences: Vec<Seen>,
    /// Details of the selected fence, if it exists.
    pub close: Option<Close>,
}

/// A fence.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The name of the fence.
    pub name: String,
    /// The condition of the fence.
    pub condition: Condition,
    /// Its counters, if they can be read.
    pub counted: Option<Snapshot>,
    /// The number of look-ups that were refused.
    pub lookups: u64,
}

/// Details of the selected fence.
#[derive(Clone, Debug)]
pub struct Close {
    /// The name of the fence.
    pub name: String,
    /// Its record.
    pub lines: Vec<Line>,
    /// The names behind addresses that it has looked up.
    pub names: NamesOfAddresses,
    /// Why these names are not known, if they cannot be read.
    pub unknown: Option<String>,
    /// Its rules: name as in the record, full text, and origin.
    pub rules: Vec<(String, String, String)>,
}

/// Takes a sample of all fences, with the details of the fence `close`.
///
/// # Errors
/// If the fences cannot be listed.
pub fn sample(fences: &Fences, close: Option<&str>) -> Result<Sample> {
    let seen = fences.list_as_found()?.into_iter().map(|listed| Seen {
        lookups: lookups(fences, &listed.name),
        name: listed.name,
        condition: listed.condition,
        counted: listed.counted,
    });
    Ok(Sample {
        fences: seen.collect(),
        close: close.map(|name| look_closely(fences, name)),
        at: Instant::now(),
    })
}

/// The number of refused look-ups of a fence. If they cannot be read, the details of the fence say so.
fn lookups(fences: &Fences, name: &str) -> u64 {
    let has_resolver = has_resolver(&fences.pins(name)).unwrap_or(false);
    let found = has_resolver.then(|| fences.names_file(name).read());
    let found = found.and_then(Result::ok);
    found.map_or(0, |found| refused(&found.lookups))
}

fn look_closely(fences: &Fences, name: &str) -> Close {
    // The fence may end at any moment. Missing parts are omitted.
    let stored = fences.policy_file(name).read().ok().flatten();
    let rules = stored
        .map(|stored| stored.policy.rules())
        .unwrap_or_default();
    let named = rules.into_iter().map(|numbered| {
        let rule = numbered.rule;
        (rule.brief(), rule.to_string(), rule.source.to_string())
    });
    let found = fences.names_file(name).read();
    Close {
        name: name.to_owned(),
        lines: fences.record_files(name).lines().unwrap_or_default(),
        unknown: found.as_ref().err().map(|error| format!("{error:#}")),
        names: found.unwrap_or_default().names,
        rules: named.collect(),
    }
}
