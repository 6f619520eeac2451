//! The network devices that were added to a guest of libvirt while it ran, and that its fence does not judge.

use nix::unistd::Pid;
use qfence_common::Hook;

use super::{taps, words_of_domain};
use crate::{
    base::{
        paths::Paths,
        process::{
            helper::Apart,
            open_taps::{MACVTAP, Tables},
        },
    },
    fence::{description::Description, devices::FencedDevice},
};

/// What is open in the fence of a guest if the kernel cannot refuse such devices, in the column OPEN of `ps`.
pub const HOTPLUG: &str = "hotplug";

/// Why a device is not fenced that libvirt has added.
const ADDED: &str = "it was added to the running guest";

/// Why it is unknown whether a process has such devices.
const UNKNOWN: &str = "the open files of a process of the guest cannot be looked at";

/// A device, by name, or by path if the name is not known, and why it is not fenced.
pub(crate) type Unfenced = (String, String);

/// The devices that the processes of a fence have open and that are not its own. The first process whose descriptors cannot
/// all be looked at is named by `/proc/PID/fd`, and no other is looked at then. `apart` looks at them. None of a fence where
/// they are allowed, or that is not attached to a guest. Where they are refused, monitor mode lets them pass.
#[must_use]
pub(crate) fn unjudged(
    fence: &Description,
    pids: &[Pid],
    apart: &mut Apart,
    paths: &Paths,
) -> Vec<Unfenced> {
    let attached = fence.attached.as_ref();
    let is_guest =
        attached.is_some_and(|attached| attached.workload.starts_with(&words_of_domain("")));
    let is_refused = fence
        .hooks
        .iter()
        .any(|hook| hook == Hook::FileReceive.name());
    let is_open = fence.open.iter().any(|open| open == HOTPLUG);
    if !is_guest || !(is_refused || is_open) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for pid in pids {
        let Some(found) = of_process(fence, *pid, apart) else {
            // The others are not asked: each could let this process wait as long.
            let directory = paths.proc.join(pid.to_string()).join("fd");
            all.push((directory.display().to_string(), UNKNOWN.to_owned()));
            break;
        };
        all.extend(found);
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Those of a process; `None` if its open files cannot be looked at.
fn of_process(fence: &Description, pid: Pid, apart: &mut Apart) -> Option<Vec<Unfenced>> {
    let open = taps::all(pid, Tables::All, apart).ok().flatten()?;
    let own = |is_same: &dyn Fn(&FencedDevice) -> bool| fence.devices.iter().any(is_same);
    let taps = open.taps.into_keys();
    let taps = taps.filter(|name| !own(&|device| device.name == *name));
    let macvtaps = open.macvtaps.into_iter();
    let macvtaps = macvtaps.filter(|index| !own(&|device| device.index == *index));
    let all = taps.chain(macvtaps.map(|index| format!("{MACVTAP}{index}")));
    Some(all.map(|device| (device, ADDED.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

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
        fs::create_dir_all(process.join("task")).unwrap();
        symlink(&process, process.join("task/42")).unwrap();
        for (number, (path, info)) in [
            ("socket:[1]", "pos:\t0\n"),
            ("/dev/net/tun", "pos:\t0\niff:\tvnet0\n"),
            ("/dev/net/tun", "pos:\t0\niff:\tvnet1\n"),
            ("/dev/net/tun", "pos:\t0\niff:\t\n"),
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

    fn by(apart: &mut Apart, fence: &Description, pid: i32, paths: &Paths) -> Vec<String> {
        let found = unjudged(fence, &[Pid::from_raw(pid)], apart, paths).into_iter();
        found.map(|(device, _)| device).collect()
    }

    fn of(fence: &Description, pid: i32, paths: &Paths) -> Vec<String> {
        by(&mut Apart::here(&paths.proc), fence, pid, paths)
    }

    #[test]
    fn a_device_that_is_not_the_fences_own_is_found() {
        let (_dir, paths) = host();
        let fence: Description = serde_json::from_str(FENCE).unwrap();
        assert_eq!(of(&fence, 42, &paths), ["/dev/tap8", "vnet1"]);
        assert!(of(&fence, 43, &paths).is_empty());
        // Monitor mode lets it pass where it would be refused.
        let text = FENCE.replace(", \"hotplug\"]", "], \"hooks\": [\"file_receive\"]");
        let monitored: Description = serde_json::from_str(&text).unwrap();
        assert_eq!(of(&monitored, 42, &paths), ["/dev/tap8", "vnet1"]);
        // The control: it is allowed, or the fence is not a guest's.
        for (from, to) in [
            (", \"hotplug\"", ""),
            ("\"domain vm\", \"cg", "\"unit vm\", \"cg"),
        ] {
            let text = FENCE.replace(from, to);
            assert_ne!(text, FENCE);
            assert!(of(&serde_json::from_str(&text).unwrap(), 42, &paths).is_empty());
        }
    }

    #[test]
    fn what_cannot_be_looked_at_may_be_anything() {
        let (_dir, paths) = host();
        let fence: Description = serde_json::from_str(FENCE).unwrap();
        let unread = |paths: &Paths, pid| [paths.proc.join(pid).join("fd").display().to_string()];
        fs::create_dir(paths.proc.join("44")).unwrap();
        fs::write(paths.proc.join("44/task"), "").unwrap();
        assert_eq!(of(&fence, 44, &paths), unread(&paths, "44"));
        // The description of an open file.
        fs::remove_file(paths.proc.join("42/fdinfo/2")).unwrap();
        fs::create_dir(paths.proc.join("42/fdinfo/2")).unwrap();
        assert_eq!(of(&fence, 42, &paths), unread(&paths, "42"));
        // The helper does not answer: in a test it is the test program, which does not have the verb.
        let (_dir, paths) = host();
        let mut apart = Apart::new(&paths.proc);
        assert_eq!(by(&mut apart, &fence, 42, &paths), unread(&paths, "42"));
    }
}
