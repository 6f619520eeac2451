//! A table of nftables in place of the pair of links, for Linux before 6.4. It sees the mark of a packet, its device and its
//! MAC address, and not `tc_index`. It counts drops by fence, and not by destination.
//!
//! The table is changed by the command `nft`. It has nothing of others, and is removed with the last fence.

use std::{
    io::Write as _,
    os::fd::BorrowedFd,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use qfence_common::frame::{EXCEPTION_MARK, MARK};
use serde::Deserialize;

use crate::kernel::within::within;

/// The places of the command.
const COMMANDS: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

/// The family and name of the table.
const TABLE: &str = "inet qfence";

/// As late as possible, like the links.
const PRIORITY: i32 = 0x7fff_fff0;

/// The table of a network namespace.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    /// The namespace; the caller's for `None`.
    pub(super) netns: Option<BorrowedFd<'a>>,
}

/// The answer of `nft --json list counter`.
#[derive(Deserialize)]
struct Listed {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    packets: u64,
}

impl Table<'_> {
    /// Makes the table, in place of one that remained.
    ///
    /// # Errors
    /// If there is no command `nft`, or the kernel rejects the table.
    pub(super) fn make(self) -> Result<()> {
        let rules = format!(
            "add table {TABLE}
             delete table {TABLE}
             table {TABLE} {{
                 counter marked {{ }}
                 map guarded_devices {{ type iface_index : counter; }}
                 map guarded_macs {{ type ether_addr : counter; }}
                 chain input {{
                     type filter hook input priority {PRIORITY}; policy accept;
                     meta mark & {MARK:#x} == {MARK:#x} counter name \"marked\" drop
                     meta mark & {EXCEPTION_MARK:#x} == {EXCEPTION_MARK:#x} accept
                     counter name iif map @guarded_devices drop
                     counter name ether saddr map @guarded_macs drop
                 }}
             }}"
        );
        self.apply(&rules).map(drop)
    }

    /// Whether the table exists.
    pub(super) fn exists(self) -> Result<bool> {
        Ok(self.run(&["list", "table", "inet", "qfence"], "")?.is_ok())
    }

    /// Removes the table. A missing table is no error.
    pub(super) fn remove(self) -> Result<()> {
        self.apply(&format!("add table {TABLE}\ndelete table {TABLE}"))
            .map(drop)
    }

    /// Drops what enters by a device, and counts it for a fence.
    pub(super) fn guard_device(self, slot: u32, index: u32) -> Result<()> {
        self.apply(&format!(
            "add counter {TABLE} slot{slot}
             add element {TABLE} guarded_devices {{ {index} : \"slot{slot}\" }}"
        ))
        .map(drop)
    }

    /// Drops what has a MAC address as its source, and counts it for a fence.
    pub(super) fn guard_mac(self, slot: u32, mac: u64) -> Result<()> {
        let mac = written(mac);
        self.apply(&format!(
            "add counter {TABLE} slot{slot}
             add element {TABLE} guarded_macs {{ {mac} : \"slot{slot}\" }}"
        ))
        .map(drop)
    }

    /// Forgets a device.
    pub(super) fn unguard_device(self, slot: u32, index: u32) -> Result<()> {
        self.guard_device(slot, index)?;
        self.apply(&format!(
            "delete element {TABLE} guarded_devices {{ {index} }}"
        ))
        .map(drop)
    }

    /// Forgets a MAC address.
    pub(super) fn unguard_mac(self, slot: u32, mac: u64) -> Result<()> {
        self.guard_mac(slot, mac)?;
        let mac = written(mac);
        self.apply(&format!("delete element {TABLE} guarded_macs {{ {mac} }}"))
            .map(drop)
    }

    /// Removes the counter of a fence, whose devices and MAC addresses are forgotten.
    pub(super) fn forget(self, slot: u32) -> Result<()> {
        self.apply(&format!(
            "add counter {TABLE} slot{slot}
             delete counter {TABLE} slot{slot}"
        ))
        .map(drop)
    }

    /// The number of packets that were dropped because of a fence, so far.
    pub(super) fn drops(self, slot: u32) -> Result<u64> {
        let counter = format!("slot{slot}");
        let listed = self.run(
            &["--json", "list", "counter", "inet", "qfence", &counter],
            "",
        )?;
        // It has no counter before it has a device.
        let Ok(listed) = listed else {
            return Ok(0);
        };
        let listed: Listed =
            serde_json::from_str(&listed).context("cannot read the answer of nft")?;
        let counters = listed
            .nftables
            .into_iter()
            .filter_map(|entry| entry.counter);
        Ok(counters.map(|counter| counter.packets).sum())
    }

    /// Makes changes, all or none.
    fn apply(self, changes: &str) -> Result<String> {
        match self.run(&["--file", "-"], changes)? {
            Ok(output) => Ok(output),
            Err(error) => bail!("nft cannot change the table {TABLE}: {error}"),
        }
    }

    /// Runs `nft`; returns its output, or what it says about an error.
    fn run(self, arguments: &[&str], input: &str) -> Result<Result<String, String>> {
        let command = COMMANDS.iter().find(|command| Path::new(command).exists());
        let command = command.context(
            "this kernel has no netfilter programs (Linux 6.4), and the command nft is not installed: install nftables",
        )?;
        within(self.netns, || {
            let mut child = Command::new(command)
                .args(arguments)
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {command}"))?;
            let stdin = child.stdin.take();
            stdin.context("no pipe")?.write_all(input.as_bytes())?;
            let output = child.wait_with_output()?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            Ok(if output.status.success() {
                Ok(text(&output.stdout))
            } else {
                Err(text(&output.stderr).replace('\n', " "))
            })
        })
    }
}

/// Finds out whether tables of nftables can be used: makes a table in the caller's network namespace and removes it.
///
/// # Errors
/// The reason why they cannot.
pub(super) fn attempt() -> Result<()> {
    let table = Table { netns: None };
    table.make()?;
    let exists = table.exists()?;
    table.remove()?;
    ensure!(exists, "nft did not make a table");
    Ok(())
}

/// A MAC address as `nft` reads it.
fn written(mac: u64) -> String {
    let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
