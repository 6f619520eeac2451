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

/// A table with the same rules, which is in force while the table is replaced.
const STAND_IN: &str = "inet qfence-stand-in";

/// The name of its chain, and the number of the rules there.
const CHAIN: &str = "input";
const RULES: usize = 4;

/// The names of its maps.
const DEVICES: &str = "guarded_devices";
const MACS: &str = "guarded_macs";

/// As late as possible, like the links.
const PRIORITY: i32 = 0x7fff_fff0;

/// The table of a network namespace.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    /// The namespace; the caller's for `None`.
    pub(super) netns: Option<BorrowedFd<'a>>,
}

/// What the table drops and counts for the fence with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// What enters by the device with an index.
    Device(u32, u32),
    /// What has a MAC address as its source.
    Mac(u32, u64),
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

impl Guard {
    /// The lines for `nft` that add it to a table, and the counter of its fence.
    fn addition(self, to: &str) -> String {
        let (Self::Device(slot, _) | Self::Mac(slot, _)) = self;
        let (map, key) = self.element();
        format!(
            "add counter {to} slot{slot}
             add element {to} {map} {{ {key} : \"slot{slot}\" }}\n"
        )
    }

    fn deletion(self) -> String {
        let (map, key) = self.element();
        format!("delete element {TABLE} {map} {{ {key} }}\n")
    }

    /// The map that has it, and its key there.
    fn element(self) -> (&'static str, String) {
        match self {
            Self::Device(_, index) => (DEVICES, index.to_string()),
            Self::Mac(_, mac) => (MACS, written(mac)),
        }
    }
}

impl Table<'_> {
    /// Makes the table with what it guards, in place of one that remained. Packets meet the former table or the new one, whole.
    ///
    /// One transaction does not suffice: the kernel changes the rules of all chains at once, but a packet passes chains one
    /// by one. If it passes the new chain before the change, and the former chain after it, both are empty. A second table
    /// is in force meanwhile.
    ///
    /// # Errors
    /// If there is no command `nft`, or the kernel rejects the table.
    pub(super) fn make(self, guarded: &[Guard]) -> Result<()> {
        if self.exists()? {
            self.apply(&text_of(STAND_IN, guarded))?;
            self.apply(&text_of(TABLE, guarded))?;
            self.apply(&removal_of(STAND_IN)).map(drop)
        } else {
            // A maker that was killed may have left the other.
            self.apply(&(removal_of(STAND_IN) + &text_of(TABLE, guarded)))
                .map(drop)
        }
    }

    /// Whether the table is in force: its chain is at its hook and has as many rules as it was made with.
    pub(super) fn is_in_force(self) -> Result<bool> {
        Ok(self.listing()?.is_ok_and(|listed| is_in_force(&listed)))
    }

    /// Whether the table is in force and has as many devices and MAC addresses as it guards.
    pub(super) fn is_whole(self, guarded: &[Guard]) -> Result<bool> {
        Ok(self
            .listing()?
            .is_ok_and(|listed| is_in_force(&listed) && has_all(&listed, guarded)))
    }

    /// The table as `nft` writes it. A missing table is an error of `nft`.
    fn listing(self) -> Result<Result<String, String>> {
        // Not as JSON: nft 1.0.6 writes no valid JSON of a dormant table.
        self.run(&["--stateless", "list", "table", "inet", "qfence"], "")
    }

    /// Whether the table exists.
    ///
    /// # Errors
    /// If that is unknown.
    pub(super) fn exists(self) -> Result<bool> {
        match self.run(&["list", "table", "inet", "qfence"], "")? {
            Ok(_) => Ok(true),
            Err(error) if error.contains("No such file or directory") => Ok(false),
            Err(error) => bail!("nft cannot list the table {TABLE}: {error}"),
        }
    }

    /// Removes the table. A missing table is no error.
    pub(super) fn remove(self) -> Result<()> {
        self.apply(&(removal_of(STAND_IN) + &removal_of(TABLE)))
            .map(drop)
    }

    /// Drops what enters by a device or has a MAC address as its source, and counts it for a fence.
    pub(super) fn guard(self, guard: Guard) -> Result<()> {
        // A stand-in that remained guards what it was made with.
        self.apply(&(removal_of(STAND_IN) + &guard.addition(TABLE)))
            .map(drop)
    }

    /// Forgets a device or a MAC address.
    pub(super) fn unguard(self, guard: Guard) -> Result<()> {
        // What is missing cannot be deleted.
        self.apply(&(removal_of(STAND_IN) + &guard.addition(TABLE) + &guard.deletion()))
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
    table.make(&[])?;
    let is_whole = table.is_whole(&[])?;
    table.remove()?;
    ensure!(is_whole, "nft did not make a table");
    Ok(())
}

/// The lines for `nft` that make a table with what it guards, in place of one that remained.
fn text_of(table: &str, guarded: &[Guard]) -> String {
    let rules = format!(
        "table {table} {{
             counter marked {{ }}
             map {DEVICES} {{ type iface_index : counter; }}
             map {MACS} {{ type ether_addr : counter; }}
             chain {CHAIN} {{
                 type filter hook input priority {PRIORITY}; policy accept;
                 meta mark & {MARK:#x} == {MARK:#x} counter name \"marked\" drop
                 meta mark & {EXCEPTION_MARK:#x} == {EXCEPTION_MARK:#x} accept
                 counter name iif map @{DEVICES} drop
                 counter name ether saddr map @{MACS} drop
             }}
         }}\n"
    );
    let elements = guarded.iter().map(|guard| guard.addition(table));
    removal_of(table) + &rules + &elements.collect::<String>()
}

/// The lines for `nft` that remove a table. A missing table is no error.
fn removal_of(table: &str) -> String {
    format!("add table {table}\ndelete table {table}\n")
}

/// Whether a table is in force, by the answer of `nft list table`. A dormant table has no hooks.
fn is_in_force(listed: &str) -> bool {
    let chain = format!("chain {CHAIN} {{");
    let all = listed.lines().map(str::trim);
    let is_dormant = all
        .clone()
        .any(|line| line.starts_with("flags") && line.contains("dormant"));
    let mut lines = all.skip_while(|line| *line != chain).skip(1);
    let is_hooked = lines
        .next()
        .is_some_and(|line| line.starts_with("type filter hook input "));
    let rules = lines.take_while(|line| *line != "}").count();
    !is_dormant && is_hooked && rules == RULES
}

/// Whether the maps of a table have as many elements as there are devices and MAC addresses to guard, by the answer of
/// `nft list table`. It names devices, which can be renamed, so their indices cannot be compared.
fn has_all(listed: &str, guarded: &[Guard]) -> bool {
    [DEVICES, MACS].iter().all(|map| {
        let start = format!("map {map} {{");
        let lines = listed.lines().map(str::trim);
        let body = lines.skip_while(|line| *line != start);
        let body = body.take_while(|line| *line != "}");
        let found: usize = body.map(|line| line.matches(" : \"slot").count()).sum();
        let wanted = guarded.iter().filter(|guard| guard.element().0 == *map);
        found == wanted.count()
    })
}

/// A MAC address as `nft` reads it.
fn written(mac: u64) -> String {
    let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
