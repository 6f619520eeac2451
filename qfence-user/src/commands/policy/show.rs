//! `policy show`: the rules of a fence in order, and the members of the sets that they name.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::NOTHING};
use qfence_common::resolved::Grant;
use serde::Serialize;

use super::super::{named::named_addresses, print, print_json, require_root};
use crate::{
    base::{paths::Paths, printable::printable},
    compile::explain::NamedAddresses,
    fence::registry::Fences,
    kernel::Maps,
    policy::{
        Dns, Numbered, Prefix, Sets,
        names::{DHCP, POD, REPLIES},
        rule::Destination,
        set::SetName,
    },
    stored_policy::StoredPolicy,
};

/// The maximum number of members of a set in the table.
const SHOWN: usize = 8;

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
    let mut shown = shown(name, &stored, &maps, json)?;
    shown.addresses = addresses(named_addresses(&fences, name)?);
    if json {
        return print_json(&shown);
    }
    print(&text(&shown))
}

fn shown(name: &str, stored: &StoredPolicy, maps: &Maps, whole: bool) -> Result<Shown> {
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
    })
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

fn text(shown: &Shown) -> String {
    let mut rules = Table::new();
    rules.load_preset(NOTHING);
    rules.set_header(["CALLS", "PACKETS", "RULE", "FROM", "COMMENT"]);
    for rule in &shown.rules {
        rules.add_row([
            rule.calls.to_string(),
            rule.packets.to_string(),
            rule.rule.clone(),
            rule.source.clone(),
            rule.comment.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    rules.add_row([
        shown.replies.calls.to_string(),
        shown.replies.packets.to_string(),
        REPLIES.to_owned(),
        "built in".to_owned(),
        "UDP replies to peers on the host".to_owned(),
    ]);
    if let Some(ShownDhcp { devices }) = &shown.dhcp {
        let devices = printable(devices.join(", ").as_bytes());
        rules.add_row([
            "-".to_owned(),
            "-".to_owned(),
            DHCP.to_owned(),
            "built in".to_owned(),
            format!("DHCP of the guests on {devices}, where this host has an address"),
        ]);
    }
    if let Some(addresses) = &shown.pod_loopback {
        rules.add_row([
            "-".to_owned(),
            "-".to_owned(),
            POD.to_owned(),
            "built in".to_owned(),
            format!(
                "services in the workload's own network namespace: {}",
                listed(addresses)
            ),
        ]);
    }
    let mut sets = Table::new();
    sets.load_preset(NOTHING);
    sets.set_header(["SET", "MEMBERS"]);
    for ShownSet { set, members } in &shown.sets {
        sets.add_row([(*set).to_owned(), listed(members)]);
    }
    let mut addresses = Table::new();
    addresses.load_preset(NOTHING);
    addresses.set_header(["ADDRESS", "NAMES", "LEFT"]);
    for ShownAddress {
        address,
        names,
        seconds,
        ..
    } in &shown.addresses
    {
        let left = format!("{seconds} s");
        addresses.add_row([address.to_string(), listed(names), left]);
    }
    let mode = if shown.monitor {
        "MONITOR MODE: nothing is refused"
    } else {
        "enforced"
    };
    let mut lines = vec![format!(
        " {}: profile {}, {mode}",
        shown.fence, shown.profile
    )];
    let addresses = (!shown.addresses.is_empty()).then_some(addresses);
    for table in [rules, sets].into_iter().chain(addresses) {
        lines.push(String::new());
        lines.extend(table.lines().map(|line| line.trim_end().to_owned()));
    }
    lines.join("\n")
}

/// The first members, and the number of the others.
fn listed(members: &[String]) -> String {
    let shown: Vec<&str> = members.iter().take(SHOWN).map(String::as_str).collect();
    match members.len() {
        0 => "-".to_owned(),
        count if count > SHOWN => format!("{} and {} more", shown.join(" "), count - SHOWN),
        _ => shown.join(" "),
    }
}
