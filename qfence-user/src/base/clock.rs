//! The boot clock, in which the eBPF programs note times.

use std::{fs, sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// The nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;

/// The time since boot, including suspend, in nanoseconds. It is that of the kernel (`bpf_ktime_get_boot_ns`), also in a time
/// namespace, whose clock differs from it.
///
/// # Errors
/// If the clock cannot be read.
pub fn since_boot() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read the clock")?;
    let now = i128::try_from(Duration::from(now).as_nanos())?;
    Ok(u64::try_from(now - offset()).unwrap_or_default())
}

/// A time of the kernel's boot clock as the kernel shows it to this process in /proc (`timens_add_boottime_ns` in
/// include/linux/time_namespace.h).
#[must_use]
pub fn as_shown(boot_ns: u64) -> u64 {
    u64::try_from(i128::from(boot_ns) + offset())
        .unwrap_or_else(|_| if offset() < 0 { 0 } else { u64::MAX })
}

/// How much later the boot clock of this process's time namespace is, in nanoseconds. A process with several threads cannot
/// change its namespace (time_namespaces(7)).
fn offset() -> i128 {
    static OFFSET: OnceLock<i128> = OnceLock::new();
    // Without time namespaces there is no such file.
    *OFFSET.get_or_init(|| {
        let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        parse_offset(&text).unwrap_or(0)
    })
}

/// Reads the offset of the boot clock from /proc/PID/timens_offsets (time_namespaces(7)).
fn parse_offset(text: &str) -> Option<i128> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?
        .split_whitespace();
    let seconds: i128 = words.next()?.parse().ok()?;
    let nanoseconds: i128 = words.next()?.parse().ok()?;
    Some(seconds * SECOND + nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_that_of_the_boot_clock() {
        let text = "monotonic           7         0\nboottime       -86400         5\n";
        assert_eq!(parse_offset(text), Some(-86_400 * SECOND + 5));
        assert_eq!(parse_offset(""), None);
        // The tests run in no time namespace.
        assert_eq!(as_shown(u64::MAX), u64::MAX);
    }
}
