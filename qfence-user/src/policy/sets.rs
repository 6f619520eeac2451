//! The members of the sets that depend on the host, at one time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Prefix, members::members, nat64::spellings, rule::Destination, set::SetName};

/// The members of the sets that depend on the host, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// The addresses of [`SetName::Host`], without their NAT64 spellings.
    pub host: BTreeSet<Prefix>,
    /// The addresses of `host` with many receivers: broadcast and multicast.
    pub many: BTreeSet<Prefix>,
    /// The host's nameservers, wherever they are.
    pub nameservers: BTreeSet<Prefix>,
    /// The gateways of the default routes.
    #[serde(default)]
    pub gateways: BTreeSet<Prefix>,
    /// The prefixes of NAT64 translators, besides the well-known one.
    #[serde(default)]
    pub nat64: BTreeSet<Prefix>,
    /// The addresses of a workload's own network namespace, if its services there are allowed (`attach --pod-loopback`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pod: BTreeSet<Prefix>,
}

impl Sets {
    /// The members of a set; `None` for `internet`, which is the rest.
    ///
    /// `host`, `lan`, `link-local` and `metadata` also have the NAT64 spellings of their IPv4 members.
    #[must_use]
    pub fn members(&self, name: SetName) -> Option<BTreeSet<Prefix>> {
        let mut found = match name {
            SetName::Host => self.host.clone(),
            SetName::Dns => self.nameservers.clone(),
            SetName::Gateway => self.gateways.clone(),
            other => members(other)?,
        };
        if matches!(
            name,
            SetName::Host | SetName::Lan | SetName::LinkLocal | SetName::Metadata
        ) {
            let spelled = spellings(found.iter().copied(), &self.nat64);
            found.extend(spelled);
        }
        Some(found)
    }

    /// The prefixes of a rule's destination; `None` for `internet`.
    #[must_use]
    pub fn prefixes(&self, destination: &Destination) -> Option<BTreeSet<Prefix>> {
        match destination {
            Destination::Set(name) => self.members(*name),
            prefix => prefix.prefixes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hostset::{host_set, single};

    fn contains(sets: &Sets, name: SetName, address: &str) -> bool {
        let single = single(address.parse().unwrap());
        let members = sets.members(name).unwrap();
        members.iter().any(|prefix| prefix.contains(&single))
    }

    #[test]
    fn nat64_spellings_belong_to_the_sets_whose_addresses_a_router_would_send_them_to() {
        let sets = Sets {
            host: host_set([single("192.0.2.10".parse().unwrap())]),
            nat64: BTreeSet::from(["2001:db8:64::/96".parse().unwrap()]),
            ..Sets::default()
        };
        for (set, v4, is_in) in [
            (SetName::Host, "192.0.2.10", true),
            (SetName::Host, "127.0.0.1", true),
            (SetName::Host, "192.0.2.11", false),
            (SetName::Lan, "10.1.2.3", true),
            (SetName::Lan, "172.16.0.1", true),
            (SetName::Lan, "172.32.0.1", false),
            (SetName::Lan, "1.1.1.1", false),
            (SetName::LinkLocal, "169.254.9.9", true),
            (SetName::Metadata, "169.254.169.254", true),
            (SetName::Metadata, "169.254.169.253", false),
            (SetName::Loopback, "127.0.0.1", false),
        ] {
            for translator in ["64:ff9b", "2001:db8:64"] {
                let address = format!("{translator}::{v4}");
                assert_eq!(contains(&sets, set, &address), is_in, "{address} in {set}");
            }
        }
        assert!(!contains(&sets, SetName::Host, "2001:db8:65::192.0.2.10"));
    }
}
