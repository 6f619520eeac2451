//! The tables of `policy show`.

use comfy_table::{Table, presets::NOTHING};

use super::{Shown, ShownAddress, ShownDhcp, ShownRule, ShownSet, ShownStruck};
use crate::{
    base::printable::printable,
    policy::names::{DHCP, POD, REPLIES},
};

/// The maximum number of members of a set in the table.
const SHOWN: usize = 8;

/// A policy as tables. Those that would be empty are left out.
pub(super) fn text(shown: &Shown) -> String {
    let mode = if shown.monitor {
        "MONITOR MODE: nothing is refused"
    } else {
        "enforced"
    };
    let mut lines = vec![format!(
        " {}: profile {}, {mode}",
        shown.fence, shown.profile
    )];
    let tables = [rules(shown), sets(shown), addresses(shown), struck(shown)];
    for table in tables.into_iter().filter(|table| !table.is_empty()) {
        lines.push(String::new());
        lines.extend(table.lines().map(|line| line.trim_end().to_owned()));
    }
    lines.join("\n")
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(header);
    table
}

/// The rules, with their hits; look-ups are a column if there is a resolver.
fn rules(shown: &Shown) -> Table {
    let has_resolver = shown.rules.iter().any(|rule| rule.lookups.is_some());
    let mut rules = match has_resolver {
        true => table(["CALLS", "PACKETS", "LOOKUPS", "RULE", "FROM", "COMMENT"]),
        false => table(["CALLS", "PACKETS", "RULE", "FROM", "COMMENT"]),
    };
    let mut add = |hits: [String; 3], rest: [String; 3]| {
        let [calls, packets, lookups] = hits;
        let lookups = has_resolver.then_some(lookups);
        let hits = [calls, packets].into_iter().chain(lookups);
        rules.add_row(hits.chain(rest));
    };
    let none = || "-".to_owned();
    for rule in &shown.rules {
        let ShownRule {
            calls,
            packets,
            lookups,
            ..
        } = rule;
        let lookups = lookups.map_or_else(none, |lookups| lookups.to_string());
        let comment = rule.comment.clone().unwrap_or_else(none);
        add(
            [calls.to_string(), packets.to_string(), lookups],
            [rule.rule.clone(), rule.source.clone(), comment],
        );
    }
    let mut built_in = |hits, rule: &str, comment: String| {
        add(hits, [rule.to_owned(), "built in".to_owned(), comment]);
    };
    let replies = &shown.replies;
    let hits = [
        replies.calls.to_string(),
        replies.packets.to_string(),
        none(),
    ];
    let comment = "UDP replies to peers on the host".to_owned();
    built_in(hits, REPLIES, comment);
    let without = || [none(), none(), none()];
    if let Some(ShownDhcp { devices }) = &shown.dhcp {
        let devices = printable(devices.join(", ").as_bytes());
        let comment = format!("DHCP of the guests on {devices}, where this host has an address");
        built_in(without(), DHCP, comment);
    }
    if let Some(addresses) = &shown.pod_loopback {
        let comment = format!(
            "services in the workload's own network namespace: {}",
            listed(addresses)
        );
        built_in(without(), POD, comment);
    }
    rules
}

fn sets(shown: &Shown) -> Table {
    let mut sets = table(["SET", "MEMBERS"]);
    for ShownSet { set, members } in &shown.sets {
        sets.add_row([(*set).to_owned(), listed(members)]);
    }
    sets
}

/// The addresses in force.
fn addresses(shown: &Shown) -> Table {
    let mut addresses = table(["ADDRESS", "NAMES", "LEFT"]);
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
    addresses
}

/// The addresses that were taken out of answers.
fn struck(shown: &Shown) -> Table {
    let mut struck = table(["STRUCK", "NAME", "SET"]);
    for ShownStruck { address, set, name } in &shown.struck {
        let [name, set] = [name, &**set].map(|text| printable(text.as_bytes()));
        struck.add_row([address.to_string(), name, set]);
    }
    struck
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::policy::show::ShownReplies, policy::Dns};

    #[test]
    fn a_table_without_rows_is_left_out() {
        let mut shown = Shown {
            fence: "vm1".to_owned(),
            profile: "locked".to_owned(),
            path: None,
            dns: Dns::Auto,
            monitor: false,
            rules: vec![ShownRule {
                number: 1,
                rule: "deny any".to_owned(),
                source: "default".to_owned(),
                comment: None,
                calls: 3,
                packets: 4,
                lookups: None,
            }],
            replies: ShownReplies {
                calls: 0,
                packets: 0,
            },
            dhcp: None,
            pod_loopback: None,
            sets: Vec::new(),
            addresses: Vec::new(),
            struck: Vec::new(),
        };
        let plain = text(&shown);
        for header in ["LOOKUPS", "MEMBERS", "ADDRESS", "STRUCK"] {
            assert!(!plain.contains(header), "{plain}");
        }
        shown.rules[0].lookups = Some(5);
        shown.struck.push(ShownStruck {
            address: "10.0.0.1".parse().unwrap(),
            set: "lan".into(),
            name: "db.example.org".to_owned(),
        });
        let named = text(&shown);
        let words = |row: &str| {
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let rows: Vec<_> = named.lines().map(words).collect();
        for row in [
            &["CALLS", "PACKETS", "LOOKUPS", "RULE", "FROM", "COMMENT"][..],
            &["3", "4", "5", "deny", "any", "default", "-"],
            &["STRUCK", "NAME", "SET"],
            &["10.0.0.1", "db.example.org", "lan"],
        ] {
            assert!(rows.iter().any(|of| of == row), "{row:?} in\n{named}");
        }
    }
}
