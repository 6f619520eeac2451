//! The network devices that were added to a guest of libvirt while it ran, and that its fence does not judge.

use std::{fs, io, path::Path};

use nix::{errno::Errno, unistd::Pid};

use super::{descriptor::name_of_device, words_of_domain};
use crate::{base::paths::Paths, fence::description::Description};

/// What is open in the fence of a guest if the kernel cannot refuse such devices, in the column OPEN of `ps`.
pub const HOTPLUG: &str = "hotplug";

/// How many descriptors of a process are looked at. A QEMU has two for each queue of a disk or network device.
const DESCRIPTORS: usize = 1 << 16;

/// The path of a macvtap device, before the index of its network device.
const MACVTAP: &str = "/dev/tap";

/// The devices that the processes of a fence have open and that are not its own, by name, or by path if the name is not known.
/// A process whose descriptors cannot all be looked at is named by `/proc/PID/fd`.
/// None of a fence where they are refused or allowed, or that is not attached to a guest.
#[must_use]
pub fn unjudged(fence: &Description, pids: &[Pid], paths: &Paths) -> Vec<String> {
    let attached = fence.attached.as_ref();
    let is_guest =
        attached.is_some_and(|attached| attached.workload.starts_with(&words_of_domain("")));
    if !is_guest || !fence.open.iter().any(|open| open == HOTPLUG) {
        return Vec::new();
    }
    let mut all: Vec<String> = pids
        .iter()
        .flat_map(|pid| of_process(fence, *pid, paths))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn of_process(fence: &Description, pid: Pid, paths: &Paths) -> Vec<String> {
    let directory = paths.proc.join(pid.to_string()).join("fd");
    let all: io::Result<Vec<_>> =
        fs::read_dir(&directory).and_then(|entries| entries.take(DESCRIPTORS + 1).collect());
    let mut entries = match all {
        Ok(entries) => entries,
        Err(error) if has_ended(&error) => return Vec::new(),
        Err(_) => return vec![directory.display().to_string()],
    };
    let more = (entries.len() > DESCRIPTORS).then(|| directory.display().to_string());
    entries.truncate(DESCRIPTORS);
    let open = entries.into_iter().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        match name_of_device(pid, number, paths) {
            Some(name) => (!fence.devices.iter().any(|own| own.name == name)).then_some(name),
            None => {
                let path = fs::read_link(entry.path()).ok()?;
                let index = macvtap(&path)?;
                let is_own = fence.devices.iter().any(|own| own.index == index);
                (!is_own).then(|| format!("{MACVTAP}{index}"))
            }
        }
    });
    open.chain(more).collect()
}

/// Whether the descriptors of a process cannot be read because it has ended.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// The index of the network device of an open file, if it is a macvtap device.
fn macvtap(path: &Path) -> Option<u32> {
    path.to_str()?.strip_prefix(MACVTAP)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const FENCE: &str = r#"{
        "command": ["domain vm"], "supervisor": 1, "started": "", "open": ["managers", "hotplug"],
        "attached": { "workload": "domain vm", "cgroup": "machine/vm.partition" },
        "devices": [
            { "name": "vnet0", "index": 4, "netns": 1, "macs": [], "learns_mac": true },
            { "name": "macvtap0", "index": 7, "netns": 1, "is_reversed": true, "macs": [], "learns_mac": true }
        ]
    }"#;

    /// A process with a socket, and with two tap and two macvtap devices open.
    fn host() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("42");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::create_dir_all(process.join("fdinfo")).unwrap();
        for (number, (path, info)) in [
            ("socket:[1]", "pos:\t0\n"),
            ("/dev/net/tun", "pos:\t0\niff:\tvnet0\n"),
            ("/dev/net/tun", "pos:\t0\niff:\tvnet1\n"),
            ("/dev/tap7", "pos:\t0\n"),
            ("/dev/tap8", "pos:\t0\n"),
        ]
        .into_iter()
        .enumerate()
        {
            symlink(path, process.join(format!("fd/{number}"))).unwrap();
            fs::write(process.join(format!("fdinfo/{number}")), info).unwrap();
        }
        let paths = Paths {
            proc: dir.path().to_owned(),
            ..Paths::default()
        };
        (dir, paths)
    }

    #[test]
    fn a_device_that_is_not_the_fences_own_is_found() {
        let (_dir, paths) = host();
        let fence: Description = serde_json::from_str(FENCE).unwrap();
        let of = |fence: &Description| unjudged(fence, &[Pid::from_raw(42)], &paths);
        assert_eq!(of(&fence), ["/dev/tap8", "vnet1"]);
        assert!(unjudged(&fence, &[Pid::from_raw(43)], &paths).is_empty());
        // What cannot be looked at may be anything.
        fs::create_dir(paths.proc.join("44")).unwrap();
        fs::write(paths.proc.join("44/fd"), "").unwrap();
        let unread = unjudged(&fence, &[Pid::from_raw(44)], &paths);
        assert_eq!(unread, [paths.proc.join("44/fd").display().to_string()]);
        let text = FENCE.replace(", \"hotplug\"", "");
        assert!(of(&serde_json::from_str(&text).unwrap()).is_empty());
        let text = FENCE.replace("\"domain vm\", \"cg", "\"unit vm\", \"cg");
        assert!(of(&serde_json::from_str(&text).unwrap()).is_empty());
    }
}
