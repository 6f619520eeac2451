//! The sources of the queries that programs have led to the resolver: see [`qfence_common::resolved::Asker`].

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use qfence_common::{Halves, Protocol, abi, address::from_v4, resolved::Asker};

use super::{hash::get, load::take};
use crate::base::clock::since_boot;

/// For how long after its packet left a source counts as one that asks.
/// Then another process could have its port. Each datagram renews it.
const ASKS_FOR: Duration = Duration::from_secs(10);

/// The sources. The map is not pinned, so it is lost with the supervisor, as the resolver is.
pub struct Askers(HashMap<MapData, Asker, u64>);

impl Askers {
    /// Takes the map of programs that are not loaded yet.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self(take(ebpf, abi::ASKERS_MAP)?.try_into()?))
    }

    /// Whether a query came from the fence, by its source. For TCP, it is asked when a connection was accepted. A source that
    /// has not asked for ten seconds counts as another one.
    ///
    /// # Errors
    /// If the map or the clock cannot be read.
    pub fn is_of_fence(&self, source: SocketAddr, protocol: Protocol) -> Result<bool> {
        let Some(key) = key(source, protocol) else {
            return Ok(false);
        };
        let asked = get(&self.0, &key)?;
        let now = since_boot()?;
        Ok(asked.is_some_and(|asked| asks(asked, now)))
    }
}

/// Whether a source that asked at a time, in nanoseconds since boot, still counts.
fn asks(asked_ns: u64, now_ns: u64) -> bool {
    // A time in the future was just written on another CPU.
    u128::from(now_ns.saturating_sub(asked_ns)) < ASKS_FOR.as_nanos()
}

/// The key of a source. `None` for a protocol whose number does not fit.
fn key(source: SocketAddr, protocol: Protocol) -> Option<Asker> {
    Some(Asker {
        address: Halves::of(match source.ip() {
            IpAddr::V4(v4) => from_v4(v4.octets()),
            IpAddr::V6(v6) => v6.octets(),
        }),
        port: source.port(),
        protocol: u16::try_from(protocol.0).ok()?,
        reserved: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_asks_for_a_while() {
        let while_ns = u64::try_from(ASKS_FOR.as_nanos()).unwrap();
        assert!(asks(7, 7) && asks(8, 7) && asks(7, 6 + while_ns));
        assert!(!asks(7, 7 + while_ns));
        assert!(!asks(0, u64::MAX));
    }

    #[test]
    fn a_mapped_source_is_that_of_ipv4() {
        let plain = key("192.0.2.1:5".parse().unwrap(), Protocol::UDP);
        let mapped = key("[::ffff:192.0.2.1]:5".parse().unwrap(), Protocol::UDP);
        assert_eq!(plain, mapped);
        let other = key("192.0.2.1:5".parse().unwrap(), Protocol::TCP);
        assert_ne!(plain, other);
    }
}
