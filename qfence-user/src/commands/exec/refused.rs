//! A server that the policy refuses, and the rules that allow it, in the words of hints. Pure.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use qfence_common::Protocol;

use crate::policy::{hostset::as_connected, protocol::protocol_name};

/// A server that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its address and port, also those that the kernel connects to if it takes others.
    pub(super) target: String,
    /// How to allow it.
    pub(super) advice: String,
}

impl Refused {
    /// Finds whether the policy refuses a server, at the address that is given or at the one to which the kernel connects
    /// for it: both are judged.
    pub(super) fn find(
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        refuses: impl Fn(IpAddr) -> bool,
    ) -> Option<Self> {
        let given = address.to_canonical();
        let connected = as_connected(given);
        let is_changed = connected != given;
        let judged = [Some(given), is_changed.then_some(connected)];
        let protocol = protocol_name(protocol.0);
        let mut advice = String::from("give ");
        let mut is_refused = false;
        for address in judged.into_iter().flatten().filter(|one| refuses(*one)) {
            let target = SocketAddr::new(address, port);
            let _ = write!(advice, "--allow {protocol}:{target} ");
            is_refused = true;
        }
        advice.push_str("to allow it");
        let mut target = SocketAddr::new(given, port).to_string();
        if is_changed {
            let _ = write!(target, ", on Linux {}", SocketAddr::new(connected, port));
        }
        is_refused.then_some(Self { target, advice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hint on a server if these addresses are refused.
    fn hint(address: &str, refused: &[&str]) -> Option<(String, String)> {
        let is_refused = |of: IpAddr| refused.contains(&of.to_string().as_str());
        let found = Refused::find(Protocol::TCP, address.parse().unwrap(), 80, is_refused);
        found.map(|Refused { target, advice }| (target, advice))
    }

    #[test]
    fn the_unspecified_address_needs_a_rule_for_loopback_too() {
        for (given, loopback, refused, advice) in [
            (
                "0.0.0.0",
                "127.0.0.1:80",
                &["0.0.0.0", "127.0.0.1"][..],
                "give --allow tcp:0.0.0.0:80 --allow tcp:127.0.0.1:80 to allow it",
            ),
            (
                "0.0.0.0",
                "127.0.0.1:80",
                &["127.0.0.1"],
                "give --allow tcp:127.0.0.1:80 to allow it",
            ),
            (
                "0.0.0.0",
                "127.0.0.1:80",
                &["0.0.0.0"],
                "give --allow tcp:0.0.0.0:80 to allow it",
            ),
            (
                "::",
                "[::1]:80",
                &["::", "::1"],
                "give --allow tcp:[::]:80 --allow tcp:[::1]:80 to allow it",
            ),
        ] {
            let target = match given {
                "::" => format!("[::]:80, on Linux {loopback}"),
                _ => format!("{given}:80, on Linux {loopback}"),
            };
            assert_eq!(hint(given, refused), Some((target, advice.to_owned())));
        }
        let mapped = hint("::ffff:0.0.0.0", &["0.0.0.0", "127.0.0.1"]);
        assert_eq!(mapped, hint("0.0.0.0", &["0.0.0.0", "127.0.0.1"]));
        assert_eq!(hint("0.0.0.0", &["::", "::1"]), None);
    }

    #[test]
    fn another_address_needs_one_rule() {
        let advice = "give --allow tcp:127.0.0.1:80 to allow it".to_owned();
        let all = &["127.0.0.1", "0.0.0.0"];
        assert_eq!(
            hint("127.0.0.1", all),
            Some(("127.0.0.1:80".to_owned(), advice))
        );
        assert_eq!(hint("127.0.0.1", &["0.0.0.0"]), None);
    }
}
