//! The table of this process's descriptors.

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{PidfdFlags, getpid, pidfd_open},
};

/// More descriptors than a fence with network devices and a resolver needs.
const ROOM: i32 = 512;

/// Makes the table large enough for a fence.
///
/// Must be called before this process has a second thread: while threads share the table, the kernel waits for a grace
/// period of RCU, about 10 ms, whenever it must grow (`expand_fdtable` in fs/file.c). It starts with 64 places, which a start
/// exceeds; with `--strict` it also exceeds the next size, 128. The table never becomes smaller, but a child gets one of its
/// own, for the descriptors that are open.
///
/// It saves time, and is not necessary: with a lower limit (RLIMIT_NOFILE) the table grows as it does anyway.
pub fn make_room() {
    // Not a copy of an inherited descriptor: to close a descriptor of a file gives up the locks that this process has on it
    // (fcntl(2)).
    if let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) {
        let _ = fcntl_dupfd_cloexec(own, ROOM - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_table_has_room() {
        make_room();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("FDSize:"))
            .unwrap();
        assert!(size.trim().parse::<i32>().unwrap() >= ROOM);
    }
}
