//! What a process holds of memory, by what the kernel says of it.

use std::fs;

use anyhow::{Context as _, Result};

/// The memory of one process, in kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What is in memory of it now, with what it shares with others (`VmRSS`).
    pub resident: u64,
    /// The most that ever was (`VmHWM`).
    pub peak: u64,
    /// What is in memory now and of no file: what it allocated and wrote (`RssAnon`).
    pub anonymous: u64,
}

impl Memory {
    /// That of a running process.
    pub fn of(pid: u32) -> Result<Self> {
        let status = read(pid, "status")?;
        Ok(Self {
            resident: field(&status, "VmRSS")?,
            peak: field(&status, "VmHWM")?,
            anonymous: field(&status, "RssAnon")?,
        })
    }
}

/// The share of a running process, in kB: a page that it has in common with others counts in part, so that
/// the shares of all of them add up.
pub fn share(pid: u32) -> Result<u64> {
    field(&read(pid, "smaps_rollup")?, "Pss")
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// A line such as `VmRSS:  11276 kB`.
fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse().ok()
    });
    value.with_context(|| format!("the kernel says no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_a_share_of_it() {
        let pid = std::process::id();
        let memory = Memory::of(pid).unwrap();
        assert!(memory.anonymous <= memory.resident && memory.resident <= memory.peak);
        assert!((1..=memory.peak).contains(&share(pid).unwrap()));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let rollup = "Rss:   100 kB\nPss_Dirty:  7 kB\nPss:   50 kB\n";
        assert_eq!(field(rollup, "Pss").unwrap(), 50);
        assert!(field(rollup, "Swap").is_err());
    }
}
