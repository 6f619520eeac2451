//! The compiler, by the verdicts of the trees that it makes.

mod flags;
mod grow;
mod intervals;
mod members;
mod named;
mod own;
mod paths;
mod size;

use qfence_common::Action;

use super::*;
use crate::policy::{
    Dns, Loaded, Policy,
    hostset::{host_set, many_set, prefix},
    nameservers, testing,
};

fn sets(resolv_conf: &str) -> Sets {
    let lan = single("192.0.2.10".parse().unwrap());
    let any_ip = prefix("198.51.100.0".parse().unwrap(), 24).unwrap();
    let broadcast = single("192.0.2.255".parse().unwrap());
    let host_v6 = single("2001:db8:7::1".parse().unwrap());
    Sets {
        host: host_set([lan, any_ip, broadcast, host_v6]),
        many: many_set([broadcast]),
        nameservers: nameservers::parse(resolv_conf.as_bytes()),
        ..Sets::default()
    }
}

/// The profile `host` with rules before it, on a host with this resolv.conf.
fn compiled(rules: &[&str], resolv_conf: &str) -> Compiled {
    let policy = testing::policy(rules, false);
    compile(&policy.rules(), &sets(resolv_conf), false).unwrap()
}

fn on(
    path: LookupPath,
    compiled: &Compiled,
    protocol: Protocol,
    address: &str,
    port: u16,
) -> Action {
    let address = address.parse().unwrap();
    compiled.decide(path, protocol, address, port).action()
}

fn verdict(compiled: &Compiled, protocol: Protocol, address: &str, port: u16) -> Action {
    on(LookupPath::Address, compiled, protocol, address, port)
}
