//! The sets of destinations that rules can name.

use std::fmt;

/// A named set of destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// The host itself, on all its addresses.
    Host,
    /// The listeners that were made in the fence.
    Fence,
    /// Addresses that always lead to the machine itself.
    Loopback,
    /// The nameservers of resolv.conf.
    Dns,
    /// The gateways of the default routes.
    Gateway,
    /// Private networks.
    Lan,
    /// Addresses that are valid only on one link.
    LinkLocal,
    /// The metadata services of clouds, which serve credentials of the machine among other data.
    Metadata,
    /// Multicast, and limited broadcast.
    Multicast,
    /// All that is not in `host`, `loopback`, `lan`, `link-local`, `metadata` or `multicast`.
    Internet,
    /// Everything.
    Any,
}

impl SetName {
    /// All sets.
    pub const ALL: [Self; 11] = [
        Self::Host,
        Self::Fence,
        Self::Loopback,
        Self::Dns,
        Self::Gateway,
        Self::Lan,
        Self::LinkLocal,
        Self::Metadata,
        Self::Multicast,
        Self::Internet,
        Self::Any,
    ];

    /// The sets that `internet` excludes.
    pub const NOT_INTERNET: [Self; 6] = [
        Self::Host,
        Self::Loopback,
        Self::Lan,
        Self::LinkLocal,
        Self::Metadata,
        Self::Multicast,
    ];

    /// Its name in rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Fence => "self",
            Self::Loopback => "loopback",
            Self::Dns => "dns",
            Self::Gateway => "gateway",
            Self::Lan => "lan",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Internet => "internet",
            Self::Any => "any",
        }
    }

    /// The set of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Its description in the help.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Host => {
                "this host, at every address that its kernel treats as local or that /etc/qfence/host.toml names"
            }
            Self::Fence => {
                "listeners that were made in the fence; TCP from port 1024 on, or PORTS; only for --allow"
            }
            Self::Loopback => {
                "127.0.0.0/8, ::1, and all other addresses that always lead to the machine itself"
            }
            Self::Dns => {
                "the nameservers in resolv.conf, and this host's addresses on the fence's network devices and their bridges; \
                 without PORTS, only port 53"
            }
            Self::Gateway => {
                "the gateways of the default routes: often the machine that this one is a guest of"
            }
            Self::Lan => "RFC 1918, shared (CGNAT), unique local and site-local addresses",
            Self::LinkLocal => "169.254.0.0/16, fe80::/10",
            Self::Metadata => "the metadata services of clouds, such as 169.254.169.254",
            Self::Multicast => "224.0.0.0/4, ff00::/8, 255.255.255.255",
            Self::Internet => {
                "all addresses that are in none of host, loopback, lan, link-local, metadata and multicast"
            }
            Self::Any => "all addresses",
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_set() {
        for set in SetName::ALL {
            assert_eq!(SetName::named(set.name()), Some(set));
            assert!(!set.description().is_empty());
        }
        assert_eq!(SetName::named("Host"), None);
        assert_eq!(SetName::named("localhost"), None);
    }
}
