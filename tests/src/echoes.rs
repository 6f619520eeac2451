//! The number of pings that reached a namespace, from the kernel's counters. The guest's result is not enough: libslirp
//! itself answers for 10.0.2.2.

use std::fs;

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;

/// The number of pings that have arrived so far, by IPv4 and by IPv6.
pub fn arrived(namespace: &Namespace) -> Result<(u64, u64)> {
    namespace.run(|| {
        // A table: a line of names, then one of values.
        let v4 = read("snmp")?;
        let mut rows = v4.lines().filter_map(|line| line.strip_prefix("Icmp: "));
        let (names, values) = (rows.next().unwrap_or(""), rows.next().unwrap_or(""));
        let mut columns = names.split(' ').zip(values.split(' '));
        let v4 = columns.find_map(|(name, value)| (name == "InEchos").then_some(value));

        let v6 = read("snmp6")?;
        let v6 = v6
            .lines()
            .find_map(|line| line.strip_prefix("Icmp6InEchos"));
        let v4 = v4.context("the kernel counts no pings")?.parse()?;
        let v6 = v6
            .context("the kernel counts no pings over IPv6")?
            .trim()
            .parse()?;
        Ok((v4, v6))
    })
}

fn read(name: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}
