//! Compiles a policy to the content of the policy map.
//!
//! For each prefix of a rule or set, [`membership`] finds the rules whose destinations contain it. [`ports`] decides between
//! these rules by protocol and port. [`named`] has the rules by name. [`intervals`] turns nested prefixes into intervals,
//! and [`tree`] makes the decision tree of the kernel from them, with slots from [`cut`].
//!
//! Each path has its own prefixes. Through the loopback device everything is the host.
pub mod explain;

mod cut;
mod intervals;
mod membership;
pub mod named;
mod ports;
pub mod shadow;
mod tree;

pub use self::ports::intervals as queries;

use std::net::IpAddr;

use intervals::Flattened;
use membership::{Membership, PrefixRules};
use ports::Ports;
use qfence_common::{
    LookupPath, Node, Nodes, Protocol, Query, Verdict, decide,
    tree::FLAGS,
    verdict::{HOST, MANY, MONITOR, NAMED, POD, SELF},
};
use tree::Tree;

use crate::policy::{Numbered, Sets, hostset::single};

/// The rules need more nodes than the tree has room for. They are never truncated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} divide {of} into {pieces} pieces, which is more than fit: name fewer in {rules}")]
pub struct DoesNotFit {
    /// The cause: addresses or ports.
    what: &'static str,
    /// The object that is divided.
    of: String,
    /// The number of pieces.
    pub pieces: usize,
    /// The rules with the most of them, as text.
    pub rules: String,
}

/// The content of the policy map.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The nodes of the tree. The first [`qfence_common::tree::HEAD`] are the roots, and the flags of the policy.
    pub nodes: Vec<Node>,
    /// One more than the highest rule number.
    pub numbers_end: u32,
    /// The number of intervals of addresses, of both paths.
    pub intervals: usize,
}

/// Compiles `rules`, of which the last must match everything, with the members in `sets`. With `monitor`, nothing
/// will be refused.
///
/// # Errors
/// If the rules distinguish more addresses, or more ports of a prefix, than there is room for.
pub fn compile(rules: &[Numbered], sets: &Sets, monitor: bool) -> Result<Compiled, DoesNotFit> {
    let mut tree = Tree::new();
    let mut ports = Ports::new(rules);
    let mut count = 0;
    let allows_names = named::allow(rules);
    for path in LookupPath::ALL {
        let mut flattened = Flattened::default();
        Membership::new(rules, sets, path).try_for_each_prefix(|of_prefix| {
            let step = ports.step(
                of_prefix,
                flags(of_prefix, path, monitor, allows_names),
                &mut tree,
            )?;
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
    named::grow(rules, &mut tree)?;
    let allows_broadcasts = if ports.allows_broadcasts() { MANY } else { 0 };
    let knows_self = if ports.knows_self() { SELF } else { 0 };
    let knows_names = if named::has_names(rules) { NAMED } else { 0 };
    Ok(Compiled {
        nodes: tree
            .into_nodes(common_flags(monitor) | allows_broadcasts | knows_self | knows_names),
        numbers_end: rules.iter().map(|rule| rule.number + 1).max().unwrap_or(0),
        intervals: count,
    })
}

fn flags(of_prefix: &PrefixRules<'_>, path: LookupPath, monitor: bool, allows_names: bool) -> u32 {
    let is_far = path == LookupPath::Address && !of_prefix.is_host && !of_prefix.is_many;
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    flag(HOST, of_prefix.is_host)
        // Only looked up by address.
        | flag(MANY, of_prefix.is_many && path == LookupPath::Address)
        | flag(POD, of_prefix.is_pod)
        | flag(NAMED, allows_names && is_far)
        | common_flags(monitor)
}

/// The flags that all verdicts of a policy have.
fn common_flags(monitor: bool) -> u32 {
    if monitor { MONITOR } else { 0 }
}

/// The three of some rules that have the most of something, as text.
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
    /// Whether the policy is in monitor mode.
    #[must_use]
    pub fn monitors(&self) -> bool {
        let flags = self.read(FLAGS).and_then(|node| node.verdict());
        flags.is_some_and(|flags| flags.has(MONITOR))
    }

    /// The kernel's verdict by this policy.
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
    fn read(&self, index: usize) -> Option<Node> {
        self.nodes.get(index).copied()
    }
}

#[cfg(test)]
mod tests;
