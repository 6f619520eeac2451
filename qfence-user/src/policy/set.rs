//! The sets of destinations that a rule can name.

use std::fmt;

/// A set of destinations with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// The host itself, on all of its addresses.
    Host,
    /// Addresses that always lead to the machine itself.
    Loopback,
    /// The nameservers of resolv.conf.
    Dns,
    /// Private networks.
    Lan,
    /// Addresses that are good on one link only.
    LinkLocal,
    /// The services by which clouds tell a machine about itself, its credentials among it.
    Metadata,
    /// Multicast, and limited broadcast.
    Multicast,
    /// What is none of `host`, `loopback`, `lan`, `link-local`, `metadata` and `multicast`.
    Internet,
    /// Everything.
    Any,
}

impl SetName {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Host,
        Self::Loopback,
        Self::Dns,
        Self::Lan,
        Self::LinkLocal,
        Self::Metadata,
        Self::Multicast,
        Self::Internet,
        Self::Any,
    ];

    /// Those that `internet` is without.
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
            Self::Loopback => "loopback",
            Self::Dns => "dns",
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

    /// What it is, in a line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Host => "this host, on every address that its kernel calls local",
            Self::Loopback => "127.0.0.0/8 and ::1, and 0.0.0.0/8 and ::, which lead there too",
            Self::Dns => {
                "the nameservers in resolv.conf; on port 53, udp and tcp, if none is given"
            }
            Self::Lan => "private networks: RFC 1918, shared (CGNAT), unique local, site-local",
            Self::LinkLocal => "169.254.0.0/16 and fe80::/10",
            Self::Metadata => "the metadata services of clouds, such as 169.254.169.254",
            Self::Multicast => "224.0.0.0/4, ff00::/8 and 255.255.255.255",
            Self::Internet => {
                "what is none of host, loopback, lan, link-local, metadata, multicast"
            }
            Self::Any => "everything",
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
