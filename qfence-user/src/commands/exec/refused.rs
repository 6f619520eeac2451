//! A server that the policy refuses, and the rules that allow it, in the words of hints. Pure.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use qfence_common::{Protocol, Verdict};

use crate::policy::{hostset::as_connected, protocol::protocol_name};

/// A server that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its address and port, also those that the kernel connects to if it takes others.
    pub(super) target: String,
    /// Whether it is refused in any case.
    pub(super) refusal: &'static str,
    /// How to allow it.
    pub(super) advice: String,
}

impl Refused {
    /// Finds whether the policy refuses a server, at the address that is given or at the one to which the kernel connects
    /// for it: both are judged. `refusal` is the verdict on an address, if it is refused.
    pub(super) fn find(
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        refusal: impl Fn(IpAddr) -> Option<Verdict>,
    ) -> Option<Self> {
        let given = address.to_canonical();
        let connected = as_connected(given);
        let is_changed = connected != given;
        let judged = [Some(given), is_changed.then_some(connected)];
        let refused = judged.into_iter().flatten();
        let refused: Vec<_> = refused
            .filter_map(|address| Some((SocketAddr::new(address, port), refusal(address)?)))
            .collect();
        if refused.is_empty() {
            return None;
        }
        let protocol = protocol_name(protocol.0);
        let rules: Vec<_> = refused
            .iter()
            .map(|(target, _)| format!("--allow {protocol}:{target}"))
            .collect();
        let mut target = SocketAddr::new(given, port).to_string();
        if is_changed {
            let _ = write!(target, ", on Linux {}", SocketAddr::new(connected, port));
        }
        // A rule for the set `self` allows the command's own listener.
        let allows_own = |(_, verdict): &(_, Verdict)| verdict.self_rule().is_some();
        let (refusal, if_needed) = match refused.iter().all(allows_own) {
            true => (
                "refused unless the command itself starts the listener",
                "if another process does",
            ),
            false => ("refused", "to allow it"),
        };
        Some(Self {
            target,
            refusal,
            advice: format!("give {} {if_needed}", rules.join(" ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::Action;

    use super::*;

    const REFUSED: Verdict = Verdict::new(Action::Deny, 1);

    /// The hint on a server if these addresses are refused.
    fn hint(address: &str, refused: &[&str]) -> Option<(String, String)> {
        let is_refused = |of: IpAddr| refused.contains(&of.to_string().as_str());
        let refusal = |of| is_refused(of).then_some(REFUSED);
        let found = Refused::find(Protocol::TCP, address.parse().unwrap(), 80, refusal);
        found.map(|refused| {
            assert_eq!(refused.refusal, "refused");
            (refused.target, refused.advice)
        })
    }

    #[test]
    fn a_listener_of_the_commands_own_is_excepted_if_a_rule_allows_it() {
        let own = REFUSED.unless_self(2);
        for (given, verdicts, refusal, end) in [
            (
                "127.0.0.1",
                [own, own],
                "refused unless the command itself starts the listener",
                "give --allow tcp:127.0.0.1:3128 if another process does",
            ),
            (
                "127.0.0.1",
                [REFUSED, REFUSED],
                "refused",
                "give --allow tcp:127.0.0.1:3128 to allow it",
            ),
            (
                "0.0.0.0",
                [own, own],
                "refused unless the command itself starts the listener",
                "--allow tcp:127.0.0.1:3128 if another process does",
            ),
            (
                "0.0.0.0",
                [own, REFUSED],
                "refused",
                "--allow tcp:127.0.0.1:3128 to allow it",
            ),
        ] {
            let address: IpAddr = given.parse().unwrap();
            let [first, second] = verdicts;
            let verdict = |of: IpAddr| Some(if of == address { first } else { second });
            let found = Refused::find(Protocol::TCP, address, 3128, verdict).unwrap();
            assert_eq!(found.refusal, refusal, "{given}");
            assert!(found.advice.ends_with(end), "{found:?}");
        }
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
