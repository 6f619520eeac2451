//! The names of listening Unix sockets in a network namespace.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::base::files::bounded;

/// More bytes than the list of a host's Unix sockets has.
const LONGEST: u64 = 16 << 20;

/// `__SO_ACCEPTCON` (linux/net.h), as the list shows the flag of listeners.
const LISTENS: &[u8] = b"00010000";

/// Reads the names, as the kernel prints them: an abstract name has `@` in place of its zero bytes. `proc` is where procfs is
/// mounted.
///
/// # Errors
/// If the list cannot be read, or is too long.
pub fn names(proc: &Path) -> Result<Vec<Vec<u8>>> {
    let path = proc.join("self/net/unix");
    let list =
        bounded::read(&path, LONGEST).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(names_in(&list))
}

/// The names in /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`. The kernel pads the inode with spaces.
fn names_in(list: &[u8]) -> Vec<Vec<u8>> {
    let name = |line: &[u8]| {
        let mut rest = line;
        let mut field = || {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(|byte| *byte == b' ')?;
            let (field, after) = rest.split_at(end);
            rest = after;
            Some(field)
        };
        let flags = (0..4).map_while(|_| field()).last()?.to_owned();
        let fields = (0..3).map_while(|_| field()).count();
        // The name can have spaces.
        let name = rest.strip_prefix(b" ")?;
        (fields == 3 && flags == LISTENS && !name.is_empty()).then(|| name.to_owned())
    };
    list.split(|byte| *byte == b'\n').filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_listeners() {
        let list = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 24563 @/tmp/dbus-abc\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 24564 @/tmp/dbus-abd\n\
            0000000000000000: 00000002 00000000 00010000 0001 01    65 /tmp/a name\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 24567\n";
        assert_eq!(names_in(list), [&b"@/tmp/dbus-abc"[..], b"/tmp/a name"]);
    }
}
