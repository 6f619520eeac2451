//! Recognises that a file was not written since it was last read, without opening it.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// The looks after a change at which a file is read all the same. File systems have times of up to two seconds' precision, so
/// a second change can have the times of the first one; looks are half a second apart.
const UNSETTLED: u32 = 5;

/// Identifies one writing of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writing {
    device: (u32, u32),
    inode: u64,
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// The last writing of a file that was seen.
#[derive(Debug, Default)]
pub(super) struct LastWriting {
    seen: Option<Writing>,
    /// At how many looks in a row it was the same.
    looks: u32,
}

impl LastWriting {
    /// Looks at the file at `path`. Returns whether its content is certainly that of the last look. A file that does not
    /// exist, or whose times say nothing, is always read. To be called before each reading.
    pub(super) fn is_same(&mut self, path: &Path) -> bool {
        let found = writing(path);
        if found.is_none() || found != self.seen {
            self.seen = found;
            self.looks = 0;
            return false;
        }
        self.looks = self.looks.saturating_add(1);
        self.looks > UNSETTLED
    }
}

/// A server of a network file system is asked, as open(2) does.
fn writing(path: &Path) -> Option<Writing> {
    let wanted = StatxFlags::BASIC_STATS;
    let found = statx(CWD, path, AtFlags::STATX_FORCE_SYNC, wanted).ok()?;
    // The content of /proc/net/pnp changes, and its times do not.
    let is_stored = found.stx_size > 0 && found.stx_ctime.tv_sec > 0;
    is_stored.then_some(Writing {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        size: found.stx_size,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    /// The number of looks until the content counts as the same, at most 20.
    fn looks(last: &mut LastWriting, path: &Path) -> usize {
        (1..20).find(|_| last.is_same(path)).unwrap_or(20)
    }

    #[test]
    fn a_file_settles_after_each_change_and_a_missing_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut last = LastWriting::default();
        assert_eq!(looks(&mut last, &path), 20);
        fs::write(&path, "one").unwrap();
        assert_eq!(looks(&mut last, &path), 7);
        assert!(last.is_same(&path));
        // Of the same size, in place, and another file of the same content.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all(b"two").unwrap();
        assert_eq!(looks(&mut last, &path), 7);
        fs::write(dir.path().join("other"), "two").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(looks(&mut last, &path), 7);
        fs::remove_file(&path).unwrap();
        assert_eq!(looks(&mut last, &path), 20);
    }

    #[test]
    fn what_the_kernel_generates_is_always_read() {
        assert_eq!(
            looks(&mut LastWriting::default(), Path::new("/proc/uptime")),
            20
        );
    }

    #[test]
    fn a_link_is_that_to_which_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, link] = ["first", "second", "link"].map(|name| dir.path().join(name));
        fs::write(&first, "x").unwrap();
        fs::write(&second, "x").unwrap();
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let mut last = LastWriting::default();
        assert_eq!(looks(&mut last, &link), 7);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert!(!last.is_same(&link));
    }
}
