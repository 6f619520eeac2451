//! `policy show`: the rules of a fence in order, and the members of the sets that they name.

mod text;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use anyhow::{Context, Result};
use qfence_common::resolved::Grant;
use serde::Serialize;

use self::text::text;
use super::super::{
    named::{found, named_addresses},
    print, print_json, require_root,
};
use crate::{
    base::paths::Paths,
    compile::explain::NamedAddresses,
    fence::registry::Fences,
    kernel::Maps,
    policy::{Dns, Numbered, Prefix, Sets, guard::Struck, rule::Destination, set::SetName},
    stored_policy::{StoredPolicy, resolved_names::StoredNames},
};

/// A policy in the JSON output.
#[derive(Serialize)]
struct Shown {
    fence: String,
    profile: String,
    path: Option<String>,
    dns: Dns,
    monitor: bool,
    rules: Vec<ShownRule>,
    replies: ShownReplies,
    /// The exception for DHCP, in a fence with network devices.
    dhcp: Option<ShownDhcp>,
    /// The addresses of the workload's own network namespace, if its services there are allowed.
    pod_loopback: Option<Vec<String>>,
    sets: Vec<ShownSet>,
    /// The addresses that rules by name allow now.
    addresses: Vec<ShownAddress>,
    /// The addresses that were taken out of the latest answers.
    struck: Vec<ShownStruck>,
}

/// The hits of the reply exception.
#[derive(Serialize)]
struct ShownReplies {
    calls: u64,
    packets: u64,
}

/// The exception for DHCP: the network devices whose guests may ask this host.
#[derive(Serialize)]
struct ShownDhcp {
    devices: Vec<String>,
}

#[derive(Serialize)]
struct ShownRule {
    number: u32,
    rule: String,
    source: String,
    comment: Option<String>,
    calls: u64,
    packets: u64,
    /// The look-ups on which it decided, if the fence has a resolver.
    lookups: Option<u64>,
}

/// An address that was taken out of an answer.
#[derive(Serialize)]
struct ShownStruck {
    address: IpAddr,
    set: Arc<str>,
    name: String,
}

/// An address that rules by name allow now.
#[derive(Serialize)]
struct ShownAddress {
    address: IpAddr,
    names: Vec<String>,
    /// The numbers of the rules.
    rules: BTreeSet<u32>,
    /// For how many seconds more, if it is not used.
    seconds: u64,
}

#[derive(Serialize)]
struct ShownSet {
    set: &'static str,
    members: Vec<String>,
}

/// Runs `policy show`.
///
/// # Errors
/// If the fence does not exist or cannot be read, or standard output cannot be written.
pub(super) fn run(name: &str, json: bool, paths: &Paths) -> Result<()> {
    require_root()?;
    let fences = Fences::look(paths)?;
    fences.enforced(name)?;
    let maps = Maps::open(&fences.pins(name))?;
    let stored = fences.policy_file(name).read()?.with_context(|| {
        format!("the fence {name} has no policy yet, because it is still starting")
    })?;
    let found = found(&fences, name)?;
    let mut shown = shown(name, &stored, &maps, found.as_ref(), json)?;
    shown.addresses = addresses(named_addresses(&fences, name)?);
    shown.struck = struck(found.unwrap_or_default());
    if json {
        return print_json(&shown);
    }
    print(&text(&shown))
}

fn shown(
    name: &str,
    stored: &StoredPolicy,
    maps: &Maps,
    found: Option<&StoredNames>,
    whole: bool,
) -> Result<Shown> {
    let StoredPolicy {
        policy,
        sets,
        devices,
        ..
    } = stored;
    let rules = policy.rules();
    let shown_rule = |Numbered { number, rule }: &Numbered| -> Result<ShownRule> {
        let hits = maps.hits(*number)?;
        Ok(ShownRule {
            number: *number,
            rule: if whole {
                rule.to_string()
            } else {
                rule.brief()
            },
            source: rule.source.to_string(),
            comment: rule.comment.clone(),
            calls: hits.calls,
            packets: hits.packets,
            lookups: found.map(|found| found.rules.get(number).copied().unwrap_or_default()),
        })
    };
    let counts = maps.counts()?;
    Ok(Shown {
        replies: ShownReplies {
            calls: counts.reply_calls,
            packets: counts.reply_packets,
        },
        dhcp: (!devices.is_empty()).then(|| ShownDhcp {
            devices: devices.clone(),
        }),
        pod_loopback: (!sets.pod.is_empty()).then(|| in_rules(sets.pod.iter().copied())),
        fence: name.to_owned(),
        profile: policy.profile.name.clone(),
        path: policy
            .profile
            .path
            .as_ref()
            .map(|path| path.display().to_string()),
        dns: policy.dns,
        monitor: policy.monitor,
        rules: rules.iter().map(shown_rule).collect::<Result<_>>()?,
        sets: named(&rules)
            .into_iter()
            .map(|set| ShownSet {
                set: set.name(),
                members: spelled(set, sets),
            })
            .collect(),
        addresses: Vec::new(),
        struck: Vec::new(),
    })
}

fn struck(found: StoredNames) -> Vec<ShownStruck> {
    let struck = found.struck.into_iter().flat_map(|(name, struck)| {
        struck
            .into_iter()
            .map(move |Struck { address, set }| ShownStruck {
                address,
                set,
                name: name.clone(),
            })
    });
    struck.collect()
}

fn addresses(named: NamedAddresses) -> Vec<ShownAddress> {
    let shown = named.into_iter().map(|(address, of)| {
        let grants = of.grants.into_iter();
        let grants = grants.take_while(|grant| *grant != Grant::NONE);
        ShownAddress {
            address,
            names: of.names.iter().map(ToString::to_string).collect(),
            rules: grants.map(Grant::rule).collect(),
            seconds: of.seconds,
        }
    });
    shown.collect()
}

/// The sets that rules name, except `any`.
fn named(rules: &[Numbered]) -> BTreeSet<SetName> {
    let matches = rules.iter().flat_map(|numbered| &numbered.rule.matches);
    matches
        .filter_map(|of| match of.destination {
            Destination::Set(SetName::Any) | Destination::Prefix(_) | Destination::Name(_) => None,
            Destination::Set(set) => Some(set),
        })
        .collect()
}

/// The members of a set, in the syntax of rules.
fn spelled(set: SetName, sets: &Sets) -> Vec<String> {
    if set == SetName::Fence {
        return vec!["listeners made in this fence".to_owned()];
    }
    let Some(members) = sets.members(set) else {
        let without = SetName::NOT_INTERNET.map(|set| format!("not {set}"));
        return without.into();
    };
    in_rules(members)
}

/// Prefixes in the syntax of rules.
fn in_rules(prefixes: impl IntoIterator<Item = Prefix>) -> Vec<String> {
    let prefixes = prefixes.into_iter().map(Destination::Prefix);
    prefixes
        .map(|destination| destination.to_string())
        .collect()
}
