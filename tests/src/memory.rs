//! The memory use of a process, from /proc.

use std::fs;

use anyhow::{Context as _, Result};

/// The memory of one process, in kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The resident memory, including pages shared with other processes (`VmRSS`).
    pub resident: u64,
    /// The maximum of the resident memory so far, or since [`forget_peak`] (`VmHWM`).
    pub peak: u64,
    /// The resident memory that is not backed by a file: allocated and written by the process (`RssAnon`).
    pub anonymous: u64,
}

impl Memory {
    /// The memory of a running process.
    pub fn of(pid: u32) -> Result<Self> {
        let status = read(pid, "status")?;
        Ok(Self {
            resident: field(&status, "VmRSS")?,
            peak: field(&status, "VmHWM")?,
            anonymous: field(&status, "RssAnon")?,
        })
    }
}

/// Lets the peak of a running process begin anew: a start needs more for a moment, to load the programs.
pub fn forget_peak(pid: u32) -> Result<()> {
    /// `CLEAR_REFS_MM_HIWATER_RSS` (fs/proc/task_mmu.c).
    const PEAK: &str = "5";
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, PEAK).with_context(|| format!("write {path}"))
}

/// The proportional share of a running process, in kB: a page that several processes share counts in part for each, so
/// that the sum of the shares is the total.
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
