//! Names the type of a file.

use nix::sys::stat::SFlag;

/// The type of a file of this mode (`st_mode`), as words; `None` for a regular file.
#[must_use]
pub fn other_than_regular(mode: u32) -> Option<&'static str> {
    let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    Some(match kind {
        SFlag::S_IFREG => return None,
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_have_a_name_but_regular_files() {
        for (mode, kind) in [
            (0o100_644, None),
            (0o040_755, Some("a directory")),
            (0o120_777, Some("a symbolic link")),
            (0o010_600, Some("a FIFO")),
            (0o140_755, Some("a socket")),
            (0o020_666, Some("a device")),
            (0o060_660, Some("a device")),
        ] {
            assert_eq!(other_than_regular(mode), kind, "{mode:o}");
        }
    }
}
