//! Destinations by address, and through the loopback device.

use super::*;

#[test]
fn through_loopback_everything_is_the_host() {
    let compiled = compiled(&[], "nameserver 127.0.0.53\nnameserver 1.1.1.1");
    let verdict = |address, port| {
        on(
            LookupPath::Loopback,
            &compiled,
            Protocol::UDP,
            address,
            port,
        )
    };
    for address in ["127.0.0.1", "8.8.8.8", "2001:db8::1", "::1"] {
        assert_eq!(verdict(address, 53), Action::Deny);
    }
    // A nameserver that is reached through loopback is the host's own.
    for address in ["127.0.0.53", "1.1.1.1"] {
        assert_eq!(verdict(address, 53), Action::Allow);
        assert_eq!(verdict(address, 54), Action::Deny);
    }
}

#[test]
fn what_is_allowed_by_address_is_allowed_through_loopback() {
    let compiled = compiled(&["allow tcp:127.0.0.1:5432", "allow tcp:[::1]:5432"], "");
    for address in ["127.0.0.1", "::1"] {
        for path in LookupPath::ALL {
            let verdict = |protocol, port| on(path, &compiled, protocol, address, port);
            assert_eq!(verdict(Protocol::TCP, 5432), Action::Allow);
            assert_eq!(verdict(Protocol::MPTCP, 5432), Action::Allow);
            assert_eq!(verdict(Protocol::TCP, 5431), Action::Deny);
            assert_eq!(verdict(Protocol::UDP, 5432), Action::Deny);
        }
    }
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "127.0.0.2", 5432),
        Action::Deny
    );
}
