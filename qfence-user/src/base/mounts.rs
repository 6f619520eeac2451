//! Reads the mount table, `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type, such as `cgroup2`.
    pub fs_type: String,
}

/// Reads the mount table from `path`, in the order in which the mounts were made.
///
/// # Errors
/// Errors of reading the file.
pub fn read(path: &Path) -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string(path)?
        .lines()
        .filter_map(parse_line)
        .collect())
}

/// Parses `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/root rw`. The number of optional fields before the
/// dash varies.
fn parse_line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    Some(Mount {
        root: unescape(fields.next()?),
        point: unescape(fields.next()?),
        fs_type: after.split(' ').next()?.to_owned(),
    })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_and_without_optional_fields() {
        let with = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw";
        let without = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let mount = Mount {
            root: "/".into(),
            point: "/sys/fs/cgroup".into(),
            fs_type: "cgroup2".into(),
        };
        assert_eq!(parse_line(with), Some(mount.clone()));
        assert_eq!(parse_line(without), Some(mount));
    }

    #[test]
    fn escapes_in_paths_are_undone() {
        assert_eq!(unescape(r"/mnt/a\040b\134c"), PathBuf::from(r"/mnt/a b\c"));
        assert_eq!(unescape(r"/odd\9"), PathBuf::from(r"/odd\9"));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        assert_eq!(parse_line(""), None);
        assert_eq!(parse_line("30 25 0:26 / /x rw"), None);
    }
}
