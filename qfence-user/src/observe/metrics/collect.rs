//! Collects the metrics of fences from the kernel and /run.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use qfence_common::{Action, Hits, tally::Class};

use crate::{
    base::paths::Paths,
    fence::registry::{Condition, Fences, Listed},
    kernel::{Maps, has_resolver, snapshot::Snapshot},
    policy::Policy,
    stored_policy::resolved_names::{RESULTS, StoredNames},
};

/// The metrics of one fence.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name of the fence.
    pub name: String,
    /// The condition of the fence.
    pub condition: Condition,
    /// The start of the fence, in seconds since 1970.
    pub started: Option<f64>,
    /// The number of processes in it.
    pub processes: usize,
    /// Its counters, if they can be read.
    pub counted: Option<Snapshot>,
    /// The number of verdicts by action and protocol.
    pub verdicts: Vec<(Action, Class, u64)>,
    /// The numbers of look-ups of names, if the fence has a resolver.
    pub lookups: Option<Lookups>,
    /// Its policy, if that can be read.
    pub policy: Option<PolicySample>,
}

/// The numbers of look-ups of names.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// By their results, in the order of [`RESULTS`].
    pub results: [u64; RESULTS.len()],
    /// By the number of the rule that decided.
    pub rules: BTreeMap<u32, u64>,
}

/// The policy of a fence.
#[derive(Clone, Debug)]
pub struct PolicySample {
    /// The name of its profile.
    pub profile: String,
    /// Whether it is in monitor mode.
    pub monitor: bool,
    /// The number of policies the fence has had, including this one.
    pub generation: u64,
    /// The number of prefixes in the set `host`.
    pub host: usize,
    /// The number of nameservers in the DNS exception.
    pub nameservers: usize,
    /// The rules: number, text, action, and hits.
    pub rules: Vec<(u32, String, Action, Hits)>,
}

/// Collects the metrics of all fences, or of the fence `only` if it exists. This changes nothing, and does not wait for
/// a process that makes or removes a fence.
///
/// # Errors
/// If the fences cannot be listed.
pub fn collect(paths: &Paths, only: Option<&str>) -> Result<Vec<Sample>> {
    let fences = Fences::look(paths)?;
    let listed = match only {
        Some(name) => vec![fences.look_at(name.to_owned())?],
        None => fences.list_as_found()?,
    };
    Ok(listed
        .into_iter()
        .map(|listed| sample(&fences, listed))
        .collect())
}

fn sample(fences: &Fences, listed: Listed) -> Sample {
    // The fence may be removed at any moment. Missing parts are omitted.
    let maps = Maps::open(&fences.pins(&listed.name)).ok();
    let started = listed
        .description
        .as_ref()
        .and_then(|description| description.started.parse().ok());
    Sample {
        policy: policy(fences, &listed, maps.as_ref()),
        lookups: lookups(fences, &listed.name),
        verdicts: maps.as_ref().map(verdicts).unwrap_or_default(),
        condition: listed.condition,
        started: started.map(|time: Timestamp| time.as_duration().as_secs_f64()),
        processes: listed.pids.len(),
        counted: listed.counted,
        name: listed.name,
    }
}

fn lookups(fences: &Fences, name: &str) -> Option<Lookups> {
    let has_resolver = has_resolver(&fences.pins(name)).ok()?;
    let found = has_resolver.then(|| fences.names_file(name).read());
    let StoredNames { lookups, rules, .. } = found?.ok()?;
    Some(Lookups {
        results: lookups,
        rules,
    })
}

fn verdicts(maps: &Maps) -> Vec<(Action, Class, u64)> {
    let each = [Action::Allow, Action::Deny]
        .into_iter()
        .flat_map(|action| Class::ALL.map(|class| (action, class)));
    each.filter_map(|(action, class)| Some((action, class, maps.verdicts(action, class).ok()?)))
        .collect()
}

fn policy(fences: &Fences, listed: &Listed, maps: Option<&Maps>) -> Option<PolicySample> {
    let stored = fences.policy_file(&listed.name).read().ok()??;
    Some(PolicySample {
        profile: stored.policy.profile.name.clone(),
        monitor: stored.policy.monitor,
        generation: stored.generation,
        host: stored.sets.host.len(),
        nameservers: stored.sets.nameservers.len(),
        rules: maps
            .map(|maps| rules(&stored.policy, maps))
            .unwrap_or_default(),
    })
}

fn rules(policy: &Policy, maps: &Maps) -> Vec<(u32, String, Action, Hits)> {
    let rules = policy.rules().into_iter();
    let sample = rules.filter_map(|numbered| {
        let hits = maps.hits(numbered.number).ok()?;
        Some((
            numbered.number,
            numbered.rule.brief(),
            numbered.rule.action,
            hits,
        ))
    });
    sample.collect()
}
