//! The cases of a verdict that depends on protocol and port, and how they are told.

use qfence_common::{
    Address, LookupPath, Node, Nodes, Protocol, Query, Verdict,
    tree::{PORT_DEPTH, leaf},
};
use serde::Serialize;

use crate::policy::protocol::protocol_name;

/// What happens in one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Which protocols and ports it is about: nothing if it is all that was asked about.
    pub which: String,
    /// `allow`, `deny`, or `monitored`: let through, and told that it would be denied.
    pub verdict: &'static str,
    /// The rule that decides.
    pub rule: String,
    /// Where that was given.
    pub source: Option<String>,
    /// What its profile says of it.
    pub comment: Option<String>,
    /// The destination by which the rule matches: a set, or a prefix.
    pub set: Option<String>,
    /// The member of the set that has the address.
    pub member: Option<String>,
}

/// Where the verdicts on an address begin, by protocol and port, in order; the first is at 0.
pub(super) fn boundaries(
    nodes: &impl Nodes,
    path: LookupPath,
    address: Address,
) -> Vec<(u32, Verdict)> {
    let mut all = Vec::new();
    let query = Query::new(path, address, Protocol::ANY, 0);
    let node = leaf(nodes, &query).unwrap_or(Node::NOWHERE);
    walk(nodes, node, (0, u32::MAX), PORT_DEPTH, &mut all);
    all.dedup_by_key(|(_, verdict)| *verdict);
    all
}

/// Adds the verdicts that a node leads to within an interval, given by its first and its last.
fn walk(
    nodes: &impl Nodes,
    node: Node,
    (from, to): (u32, u32),
    depth: usize,
    all: &mut Vec<(u32, Verdict)>,
) {
    if let Some(verdict) = node.verdict() {
        all.push((from, verdict));
        return;
    }
    // What has no end refuses, and is not written by the compiler.
    let Some(depth) = depth.checked_sub(1) else {
        all.push((from, Verdict::NONE));
        return;
    };
    let mut ways = node.ways().peekable();
    while let Some((begins, index)) = ways.next() {
        let ends = ways.peek().map_or(u64::MAX, |(next, _)| next - 1);
        let first = from.max(u32::try_from(begins).unwrap_or(u32::MAX));
        let last = to.min(u32::try_from(ends).unwrap_or(u32::MAX));
        if u64::from(first) >= begins && first <= last {
            let next = nodes.read(index).unwrap_or(Node::NOWHERE);
            walk(nodes, next, (first, last), depth, all);
        }
    }
}

/// Intervals of protocol and port, in words: `tcp 80,443-445; udp`.
pub(super) fn spell(intervals: &[(u32, u32)]) -> String {
    let mut parts: Vec<(u32, Vec<String>)> = Vec::new();
    for &(first, last) in intervals {
        let (low, high) = (first >> 16, last >> 16);
        if low != high {
            let name = format!("protocols {low} to {high}");
            parts.push((u32::MAX, vec![name]));
            continue;
        }
        let ports = (first & 0xffff, last & 0xffff);
        let words = match ports {
            (0, 0xffff) => None,
            (first, last) if first == last => Some(first.to_string()),
            (first, last) => Some(format!("{first}-{last}")),
        };
        match parts.last_mut() {
            Some((protocol, all)) if *protocol == low => all.extend(words),
            _ => parts.push((low, words.into_iter().collect())),
        }
    }
    let spelled: Vec<_> = parts
        .into_iter()
        .map(|(protocol, words)| match protocol {
            u32::MAX => words.join(","),
            _ if words.is_empty() => protocol_name(protocol),
            _ => format!("{} {}", protocol_name(protocol), words.join(",")),
        })
        .collect();
    spelled.join("; ")
}
