//! The table of this process's descriptors.

use std::io;

use rustix::io::fcntl_dupfd_cloexec;

/// More descriptors than a fence with network devices and a resolver needs.
const ROOM: i32 = 512;

/// Makes the table large enough for a fence.
///
/// Must be called before this process has a second thread: while threads share the table, the kernel waits for a grace
/// period of RCU, about 10 ms, whenever it must grow (`expand_fdtable` in fs/file.c). It starts with 64 places, which a start
/// of a fence exceeds twice. The table never becomes smaller, but a child gets one of its own, for the descriptors that are
/// open.
///
/// It saves time, and is not necessary: with a lower limit (RLIMIT_NOFILE) the table grows as it does anyway.
pub fn make_room() {
    let _ = fcntl_dupfd_cloexec(io::stdin(), ROOM - 1);
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
