//! The set `self`: with a rule for it, a process in the fence reaches listeners that were made there, and none of the host's.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

use nix::errno::Errno;

use super::{
    calls::{Call, Called},
    cases::Case,
    own_netns::by_tcp,
};

/// The rule, as `--allow` takes it.
pub const RULE: &str = "self";

/// What follows the attempts in the report.
pub const SUFFIX: &str = ", --allow self";

/// The host's listeners, which the rule does not open.
pub const OF_THE_HOST: &[Case] = &[
    case("tcp/127.0.0.1/8080"),
    case("tcp/192.0.2.10/8080"),
    case("tcp/::1/8080"),
    case("tcp/2001:db8:1::10/8080"),
    case("mptcp/127.0.0.1/8080"),
    case("udp/127.0.0.1/8080"),
];

/// The fence's own listeners: the name of each row, and the address.
const OWN: [(&str, &str); 4] = [
    ("own listener at 127.0.0.1", "127.0.0.1"),
    ("own listener at 192.0.2.10", "192.0.2.10"),
    ("own listener at ::1", "::1"),
    ("own listener at 2001:db8:1::10", "2001:db8:1::10"),
];

const fn case(spec: &'static str) -> Case {
    Case { spec, short: false }
}

/// The calls that must work, those of IPv6 if there is any.
pub fn calls(has_v6: bool) -> impl Iterator<Item = Call> {
    OWN.into_iter()
        .filter(move |(_, address)| has_v6 || !address.contains(':'))
        .map(|(attempt, address)| Call {
            attempt,
            words: vec!["own-listener".to_owned(), address.to_owned()],
            late: &[],
            closure: "",
            short: false,
        })
}

/// Listens on a port of an address, and talks to itself there.
#[must_use]
pub fn talk(address: IpAddr) -> Called {
    Called::make(|| {
        let talked = TcpListener::bind(SocketAddr::new(address, 0))
            .map_err(anyhow::Error::from)
            .and_then(|listener| by_tcp(&listener));
        talked.map_err(|error| {
            let number = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            number.map_or(Errno::EIO, Errno::from_raw)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_and_a_foreign_address_is_an_error() {
        assert_eq!(talk([127, 0, 0, 1].into()).errno, None);
        let foreign = talk([198, 51, 100, 77].into());
        assert_eq!(foreign.errno, Some(Errno::EADDRNOTAVAIL as i32));
    }

    #[test]
    fn each_call_has_its_address() {
        assert_eq!(calls(false).count(), 2);
        for call in calls(true) {
            let address = &call.words[1];
            assert!(address.parse::<IpAddr>().is_ok(), "{address}");
            assert!(call.attempt.ends_with(address), "{call:?}");
        }
    }
}
