//! Compiles a policy to the contents of the policy map.
//!
//! For each prefix that any rule or set has, [`membership`] finds the rules whose destination holds it,
//! and [`ports`] says what the first of them that matches makes of each protocol and port. [`intervals`]
//! lays the prefixes side by side, and [`tree`] makes of all that the tree that the kernel goes down.
//!
//! There are two sets of prefixes, one for each path. Through the loopback device everything is the host.
pub mod explain;

mod cut;
mod intervals;
mod membership;
mod ports;
pub mod shadow;
mod tree;

use std::net::IpAddr;

use intervals::Flattened;
use membership::{Membership, PrefixRules};
use ports::Ports;
use qfence_common::{
    LookupPath, Node, Nodes, Protocol, Query, Verdict, decide,
    tree::FLAGS,
    verdict::{HOST, MANY, MONITOR},
};
use tree::Tree;

use crate::policy::{Numbered, Sets, hostset::single};

/// The rules say more than the kernel's tree has room for. Nothing is ever cut short.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cut {of} into {pieces} pieces, for which there is no room: name fewer in {rules}")]
pub struct DoesNotFit {
    /// What there is too much of.
    what: &'static str,
    /// What is cut.
    of: String,
    /// Into how many pieces.
    pub pieces: usize,
    /// The rules that name the most of it, as they are written.
    pub rules: String,
}

/// The contents of the policy map.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The tree. Its first [`qfence_common::tree::HEAD`] nodes are its roots, and the flags of all.
    pub nodes: Vec<Node>,
    /// Below what the numbers of the rules are.
    pub numbers_end: u32,
    /// Into how many intervals the rules cut the addresses, of both paths.
    pub intervals: usize,
}

/// Compiles `rules`, of which the last matches everything, with the members that `sets` have now.
/// With `monitor` nothing is to be refused.
///
/// # Errors
/// If the rules tell more addresses apart, or more ports of a prefix, than there is room for.
pub fn compile(rules: &[Numbered], sets: &Sets, monitor: bool) -> Result<Compiled, DoesNotFit> {
    let mut tree = Tree::new();
    let mut ports = Ports::new(rules);
    let mut count = 0;
    for path in LookupPath::ALL {
        let mut flattened = Flattened::default();
        Membership::new(rules, sets, path).try_for_each_prefix(|of_prefix| {
            let step = ports.step(of_prefix, flags(of_prefix, path, monitor), &mut tree)?;
            flattened.add(of_prefix.prefix, step);
            Ok(())
        })?;
        let intervals = flattened.finish();
        count += intervals.len();
        tree.grow_addresses(path, &intervals)
            .map_err(|too_many| DoesNotFit {
                what: "their prefixes",
                of: "the addresses".to_owned(),
                pieces: too_many.pieces,
                rules: most(rules, 0..rules.len(), |rule| rule.matches.len()),
            })?;
    }
    let allows_broadcasts = if ports.allows_broadcasts() { MANY } else { 0 };
    Ok(Compiled {
        nodes: tree.into_nodes(common_flags(monitor) | allows_broadcasts),
        numbers_end: rules.iter().map(|rule| rule.number + 1).max().unwrap_or(0),
        intervals: count,
    })
}

fn flags(of_prefix: &PrefixRules<'_>, path: LookupPath, monitor: bool) -> u32 {
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    flag(HOST, of_prefix.is_host)
        // Asked for by address alone.
        | flag(MANY, of_prefix.is_many && path == LookupPath::Address)
        | common_flags(monitor)
}

/// The flags that all of a policy have.
fn common_flags(monitor: bool) -> u32 {
    if monitor { MONITOR } else { 0 }
}

/// Three of some rules, which have the most of something, as they are written.
fn most(
    rules: &[Numbered],
    some: impl IntoIterator<Item = usize>,
    has: impl Fn(&crate::policy::rule::Rule) -> usize,
) -> String {
    let mut some: Vec<_> = some.into_iter().map(|index| &rules[index].rule).collect();
    some.sort_by_key(|rule| std::cmp::Reverse(has(rule)));
    let named: Vec<_> = some
        .iter()
        .take(3)
        .map(|rule| format!("`{}` ({})", rule.brief(), rule.source))
        .collect();
    named.join(", ")
}

impl Compiled {
    /// Whether nothing is refused by it.
    #[must_use]
    pub fn monitors(&self) -> bool {
        let flags = self.read(FLAGS).and_then(|node| node.verdict());
        flags.is_some_and(|flags| flags.has(MONITOR))
    }

    /// What the kernel decides by this.
    #[must_use]
    pub fn decide(
        &self,
        path: LookupPath,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
    ) -> Verdict {
        let address = single(address).addr().octets();
        decide(self, &Query::new(path, address, protocol, port))
    }
}

impl Nodes for Compiled {
    fn read(&self, index: u32) -> Option<Node> {
        self.nodes.get(usize::try_from(index).ok()?).copied()
    }
}

#[cfg(test)]
mod tests;
