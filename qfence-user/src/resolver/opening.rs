//! Puts the addresses of an answer in force.

use std::{net::IpAddr, time::Duration};

use qfence_common::resolved::Grant;

use super::{
    counts::Counts,
    ends::{Ends, NotPublished, Verdict},
};
use crate::policy::domain::DomainName;

/// What became of the addresses of a name.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Those that may be in the answer.
    pub(super) addresses: Vec<IpAddr>,
    /// Those that no name opens, and why.
    pub(super) struck: Vec<(IpAddr, &'static str)>,
    is_full: bool,
    has_failed: bool,
}

impl Opened {
    /// Opens addresses of a name for this time. Without grants, the policy judges them as all others: then nothing is
    /// struck, and nothing put in force.
    pub(super) fn open(
        ends: &Ends,
        counts: &Counts,
        name: Option<&DomainName>,
        addresses: &[IpAddr],
        grants: &[Grant],
        lasts: Duration,
    ) -> Self {
        let Some(name) = name.filter(|_| !grants.is_empty()) else {
            return Self {
                addresses: addresses.to_vec(),
                ..Self::default()
            };
        };
        let mut opened = Self::default();
        for &address in addresses {
            if let Some(reason) = ends.guarded.reason(address) {
                opened.struck.push((address, reason));
                continue;
            }
            match ends.publisher.publish(name, address, grants, lasts) {
                Ok(()) => opened.addresses.push(address),
                Err(NotPublished::Full) => {
                    counts.full.add();
                    opened.is_full = true;
                }
                Err(NotPublished::Failed) => {
                    counts.unpublished.add();
                    opened.has_failed = true;
                }
            }
        }
        opened
    }

    /// The result of the look-up. An error of the kernel is the worst.
    pub(super) const fn verdict(&self) -> Verdict {
        match (self.has_failed, self.is_full) {
            (true, _) => Verdict::Unpublished,
            (false, true) => Verdict::Full,
            (false, false) => Verdict::Allowed,
        }
    }

    /// Why there is no address in the answer although the nameservers have some, if that is the fence's failure.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match self.verdict() {
            _ if !self.addresses.is_empty() => None,
            Verdict::Unpublished => Some("qfence: the kernel failed to open the addresses"),
            Verdict::Full => Some("qfence: no more addresses of names can be open"),
            _ => None,
        }
    }
}
