//! The tap and macvtap devices that a process has open, by /proc (proc_pid_fdinfo(5)). The helper process looks at them
//! (`helper.rs`), because the kernel describes some files only when nobody uses them: the description of an epoll instance
//! waits until no thread has it write events to its memory (`ep_show_fdinfo` and `ep_send_events` in fs/eventpoll.c). A file
//! system in user space (FUSE) can supply that memory, and need not answer. Nothing ends such a wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use qfence_common::device::TUN;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use serde::{Deserialize, Serialize};

/// The most descriptors that are looked at: the kernel's default for `fs.nr_open`.
const DESCRIPTORS: usize = 1 << 20;

/// The most bytes of the description of a file. The locks of a file come before its device, some 50 bytes each.
const DESCRIPTION: u64 = 1 << 24;

/// The path of a macvtap device, before the index of its network device.
pub(crate) const MACVTAP: &str = "/dev/tap";

/// The devices that a process has open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenTaps {
    /// The descriptors of each tap device, by the name of the device.
    pub(crate) taps: BTreeMap<String, BTreeSet<i32>>,
    /// The indices of the network devices of macvtap devices.
    pub(crate) macvtaps: BTreeSet<u32>,
}

/// Which tables of descriptors of a process are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Tables {
    /// That of its first thread, which all threads share in most programs.
    First,
    /// That of each thread: a process can hide a descriptor in a table of its own (CLONE_FILES of unshare(2)).
    All,
}

/// The answer of the helper for the process of a directory in /proc. A process that has ended has none open.
pub(super) fn answer(process: &Path, tables: Tables) -> Vec<u8> {
    let found = match look(process, tables) {
        Err(error) if is_gone(&error) => Ok(Some(OpenTaps::default())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        found => found.map(Some).map_err(|error| error.to_string()),
    };
    serde_json::to_vec(&found).unwrap_or_default()
}

/// Decodes it. `None` if this process may not look at that one's open files (ptrace(2), "Ptrace access mode checking").
///
/// # Errors
/// That of the helper; and if the answer was cut off, because there are too many.
pub(crate) fn decode(answer: &[u8]) -> Result<Option<OpenTaps>> {
    let found: Result<Option<OpenTaps>, String> =
        serde_json::from_slice(answer).context("the answer of the helper process is incomplete")?;
    found.map_err(|error| anyhow!(error))
}

fn look(process: &Path, tables: Tables) -> io::Result<OpenTaps> {
    let (mut open, mut left) = (OpenTaps::default(), DESCRIPTORS);
    if tables == Tables::First {
        look_at_table(process, &mut open, &mut left)?;
        return Ok(open);
    }
    for thread in fs::read_dir(process.join("task"))? {
        match look_at_table(&thread?.path(), &mut open, &mut left) {
            // The thread has ended meanwhile.
            Err(error) if is_gone(&error) => {}
            looked => looked?,
        }
    }
    Ok(open)
}

/// Adds the devices in the table of a process or a thread. `left` is how many descriptors may still be looked at.
fn look_at_table(process: &Path, open: &mut OpenTaps, left: &mut usize) -> io::Result<()> {
    for entry in fs::read_dir(process.join("fd"))? {
        *left = left.checked_sub(1).ok_or_else(|| {
            io::Error::other(format!("it has more than {DESCRIPTORS} files open"))
        })?;
        let name = entry?.file_name();
        let Some(descriptor) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match look_at(process, descriptor, open) {
            // It was closed meanwhile.
            Err(error) if is_gone(&error) => {}
            looked => looked?,
        }
    }
    Ok(())
}

/// Adds the device of a descriptor, if it has one. Only the kernel's own description of a file shows that: the path of the
/// device file is not known once its mount was detached, as slirp4netns does. Sockets, pipes, epoll instances and the like
/// have no path, and are not described.
fn look_at(process: &Path, descriptor: i32, open: &mut OpenTaps) -> io::Result<()> {
    let file = process.join("fd").join(descriptor.to_string());
    let path = fs::read_link(&file)?;
    if !path.is_absolute() {
        return Ok(());
    }
    let index = path.to_str().and_then(|path| path.strip_prefix(MACVTAP));
    if let Some(index) = index.and_then(|index| index.parse().ok()) {
        open.macvtaps.insert(index);
        return Ok(());
    }
    if !is_tun(&file)? {
        return Ok(());
    }
    let description = process.join("fdinfo").join(descriptor.to_string());
    if let Some(name) = tap(File::open(description)?)? {
        open.taps.entry(name).or_default().insert(descriptor);
    }
    Ok(())
}

/// Whether an open file is the device by which processes get tap devices. Other files are not described: a process can have
/// so many locks on one that the description takes minutes. A file system in user space is not asked.
fn is_tun(file: &Path) -> io::Result<bool> {
    let about = statx(CWD, file, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)?;
    let is_device = FileType::from_raw_mode(about.stx_mode.into()) == FileType::CharacterDevice;
    Ok(is_device && (about.stx_rdev_major, about.stx_rdev_minor) == (TUN.major, TUN.minor))
}

/// The name of the tap device in a description (`tun_chr_show_fdinfo` in drivers/net/tun.c); `None` for another file, and
/// for one that is attached to no device any more.
fn tap(description: impl io::Read) -> io::Result<Option<String>> {
    let mut lines = BufReader::new(description.take(DESCRIPTION));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some(name) = line.strip_prefix(b"iff:") {
            let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
            return Ok((!name.is_empty()).then_some(name));
        }
        line.clear();
    }
    match lines.into_inner().limit() {
        0 => Err(io::Error::other(
            "the description of one of its files is too long",
        )),
        _ => Ok(None),
    }
}

/// Whether what was looked at has ended or was closed.
fn is_gone(error: &io::Error) -> bool {
    [Some(Errno::ENOENT as i32), Some(Errno::ESRCH as i32)].contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const TAP: &str = "pos:\t0\nflags:\t02004002\nmnt_id:\t40\niff:\ttap0\n";

    /// A process with these descriptors, each with its path and its description.
    fn process(files: &[(i32, &str, &str)]) -> tempfile::TempDir {
        let process = tempfile::tempdir().unwrap();
        for directory in ["fd", "fdinfo"] {
            fs::create_dir(process.path().join(directory)).unwrap();
        }
        for (number, path, text) in files {
            let number = number.to_string();
            symlink(path, process.path().join("fd").join(&number)).unwrap();
            fs::write(process.path().join("fdinfo").join(&number), text).unwrap();
        }
        process
    }

    fn of(process: &Path) -> Result<OpenTaps> {
        Ok(decode(&answer(process, Tables::First))?.unwrap())
    }

    #[test]
    fn a_thread_with_a_table_of_its_own_hides_nothing() {
        let first = process(&[(4, "/dev/null", TAP)]);
        let other = process(&[(3, "/dev/net/tun", TAP)]);
        fs::create_dir(first.path().join("task")).unwrap();
        for (thread, table) in [("1", first.path()), ("2", other.path())] {
            symlink(table, first.path().join("task").join(thread)).unwrap();
        }
        // One that has ended.
        fs::create_dir(first.path().join("task/3")).unwrap();
        let all = decode(&answer(first.path(), Tables::All)).unwrap().unwrap();
        assert_eq!(all.taps["tap0"], BTreeSet::from([3]));
        assert_eq!(of(first.path()).unwrap(), OpenTaps::default(), "control");
    }

    #[test]
    fn a_tap_is_known_by_the_description_of_the_file() {
        let process = process(&[
            (3, "/dev/net/tun", TAP),
            (4, "/dev/net/tun", TAP),
            (11, "/dev/null", TAP),
            (5, "/dev/net/tun", "pos:\t0\n"),
            (6, "/etc/iff:", "pos:\t0\nflags:\t0 iff:\n"),
            (7, "socket:[7]", TAP),
            // It is not attached, or its device was deleted.
            (8, "/dev/net/tun", "pos:\t0\niff:\t\n"),
            (9, "/dev/tap7", "pos:\t0\n"),
            (10, "/dev/tap7x", "pos:\t0\n"),
        ]);
        let found = of(process.path()).unwrap();
        let taps = BTreeMap::from([("tap0".to_owned(), BTreeSet::from([3, 4]))]);
        let macvtaps = BTreeSet::from([7]);
        assert_eq!(found, OpenTaps { taps, macvtaps });
    }

    #[test]
    fn locks_on_the_file_do_not_hide_the_device() {
        let lock = "lock:\t1: POSIX  ADVISORY  WRITE 4711 00:05:12 100 100\n";
        let locked = |count| format!("pos:\t0\n{}iff:\ttap0\n", lock.repeat(count));
        let of = |text: String| of(process(&[(3, "/dev/net/tun", &text)]).path());
        assert!(of(locked(100_000)).unwrap().taps.contains_key("tap0"));
        // What cannot be read is not taken for nothing.
        let error = of(locked(400_000)).unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }

    #[test]
    fn an_epoll_instance_is_not_described() {
        let process = process(&[(3, "/dev/net/tun", TAP), (4, "anon_inode:[eventpoll]", TAP)]);
        // Reading it would fail the test: it is a directory.
        let description = process.path().join("fdinfo/4");
        fs::remove_file(&description).unwrap();
        fs::create_dir(&description).unwrap();
        assert_eq!(
            of(process.path()).unwrap().taps["tap0"],
            BTreeSet::from([3])
        );
        // The control: another file is.
        let path = process.path().join("fd/4");
        fs::remove_file(&path).unwrap();
        symlink("/dev/net/tun", &path).unwrap();
        assert!(of(process.path()).is_err());
    }

    #[test]
    fn what_is_gone_has_none_open_and_what_cannot_be_read_is_an_error() {
        let process = process(&[(3, "/dev/net/tun", TAP)]);
        fs::remove_file(process.path().join("fdinfo/3")).unwrap();
        assert_eq!(of(process.path()).unwrap(), OpenTaps::default());
        let ended = process.path().join("ended");
        assert_eq!(of(&ended).unwrap(), OpenTaps::default());
        fs::create_dir(&ended).unwrap();
        fs::write(ended.join("fd"), "").unwrap();
        assert!(of(&ended).is_err());
        assert!(decode(b"{\"Ok\":{\"taps\":{\"tap0\":[3,").is_err());
        assert_eq!(decode(b"{\"Ok\":null}").unwrap(), None);
    }
}
