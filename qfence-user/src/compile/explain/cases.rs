//! The cases of a verdict that depends on protocol and port, and their text.

use qfence_common::{
    Address, LookupPath, Node, Nodes, Protocol, Query, Verdict,
    tree::{PORT_DEPTH, leaf},
};
use serde::Serialize;

use crate::policy::protocol::protocol_name;

/// The verdict for some protocols and ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The protocols and ports; empty if the case covers the whole question.
    pub which: String,
    /// `allow`, `deny`, or `monitored`: allowed, and logged as `would-deny`.
    pub verdict: &'static str,
    /// The deciding rule.
    pub rule: String,
    /// The source of the rule.
    pub source: Option<String>,
    /// The comment of the rule.
    pub comment: Option<String>,
    /// The rule that allows it after all, if the listener was made in the fence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unless_self: Option<String>,
    /// The destination of the rule that matches: a set, or a prefix.
    pub set: Option<String>,
    /// The member of the set that has the address.
    pub member: Option<String>,
}

/// The verdicts on an address in the order of protocol and port, with their first values. The first is at 0.
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

/// Adds the verdicts below a node within an interval.
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
    // A tree that is too deep denies. The compiler makes none.
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

/// Intervals of protocol and port as text: `tcp 80,443-445; udp`.
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
