//! The kernel's clock and the wall clock.

use std::time::Duration;

use jiff::Timestamp;

use crate::base::clock::since_boot;

/// The wall clock time at which the boot clock (`CLOCK_BOOTTIME`, which includes suspends) was 0. Compute it again each
/// time, because the wall clock may have been set.
#[must_use]
pub fn boot_time() -> Timestamp {
    let now = Timestamp::now();
    since_boot()
        .ok()
        .and_then(|since_boot| now.checked_sub(Duration::from_nanos(since_boot)).ok())
        .unwrap_or(now)
}

/// The time `boot_ns` nanoseconds after `boot_time`.
#[must_use]
pub fn at(boot_time: Timestamp, boot_ns: u64) -> Timestamp {
    // The result is out of range only after the year 9999.
    let since = Duration::from_nanos(boot_ns);
    boot_time.checked_add(since).unwrap_or(boot_time)
}
