//! What there is to see now, out of the kernel and /run.

use std::time::Instant;

use anyhow::Result;

use crate::{
    fence::registry::{Condition, Fences},
    kernel::snapshot::Snapshot,
    record::line::Line,
};

/// All fences at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// The fences, by name.
    pub fences: Vec<Seen>,
    /// The one that is looked at closely, if it is there.
    pub close: Option<Close>,
}

/// A fence.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// What it is like.
    pub condition: Condition,
    /// What it has counted, if that can be read.
    pub counted: Option<Snapshot>,
}

/// A fence that is looked at closely.
#[derive(Clone, Debug)]
pub struct Close {
    /// Its name.
    pub name: String,
    /// Its record.
    pub lines: Vec<Line>,
    /// Its rules: as the record names them, whole, and where each was given.
    pub rules: Vec<(String, String, String)>,
}

/// Looks at all fences, and closely at the one of that name.
///
/// # Errors
/// If the fences cannot be listed.
pub fn sample(fences: &Fences, close: Option<&str>) -> Result<Sample> {
    let seen = fences.list_as_found()?.into_iter().map(|listed| Seen {
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

fn look_closely(fences: &Fences, name: &str) -> Close {
    // It may end at any moment; what is not there is not shown.
    let stored = fences.policy_file(name).read().ok().flatten();
    let rules = stored
        .map(|stored| stored.policy.rules())
        .unwrap_or_default();
    let named = rules.into_iter().map(|numbered| {
        let rule = numbered.rule;
        (rule.brief(), rule.to_string(), rule.source.to_string())
    });
    Close {
        name: name.to_owned(),
        lines: fences.record_files(name).lines().unwrap_or_default(),
        rules: named.collect(),
    }
}
