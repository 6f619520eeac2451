//! What is pinned for a device: its links, or, where filters of traffic control take their place, its programs with a marker
//! of where the filters are. Everything is in the directory of the fence's links.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use qfence_common::Hook;

use super::{HOOKS, classic, tcx::Way};
use crate::{
    base::files::entries,
    kernel::{
        bpffs, by_path, link_info,
        within::{find, within},
    },
};

/// The begin of a marker's name. The index of the device and the number of its network namespace follow.
const MARKER: &str = "clsact";

/// The directory in a marker's that shows that the queueing discipline is ours.
const MADE: &str = "made";

/// The path of the pin of a device's link, in the directory of a fence's links.
#[must_use]
pub fn pin(pins: &Path, hook: Hook, index: u32) -> PathBuf {
    pins.join(format!("{}-{index}", hook.name()))
}

/// A directory that shows that a device has filters, and in which network namespace. It is made before them.
pub(super) struct Marker {
    path: PathBuf,
    /// The number of the network namespace.
    netns: u64,
}

impl Marker {
    pub(super) fn make(pins: &Path, index: u32, netns: u64) -> Result<Self> {
        let path = pins.join(format!("{MARKER}-{index}-{netns}"));
        bpffs::make(&path)?;
        Ok(Self { path, netns })
    }

    /// That of a device.
    pub(super) fn of(pins: &Path, index: u32) -> Result<Option<Self>> {
        let found = read(pins)?.into_iter().find_map(|path| {
            let (name, found) = (path.file_name()?.to_str()?, format!("{MARKER}-{index}-"));
            let netns = name.strip_prefix(&found)?.parse().ok()?;
            Some(Self { path, netns })
        });
        Ok(found)
    }

    /// Notes that the queueing discipline did not exist before.
    pub(super) fn made_the_qdisc(&self) -> Result<()> {
        Ok(bpffs::make(&self.path.join(MADE))?)
    }

    /// Removes the filters of a device. If their namespace is gone, they are gone too.
    fn release(&self, index: u32) -> Result<()> {
        let Some(netns) = find(self.netns) else {
            return Ok(());
        };
        within(Some(netns.as_fd()), || {
            for way in Way::BOTH {
                classic::detach(index, way)?;
            }
            if self.path.join(MADE).exists() {
                classic::clean(index)?;
            }
            Ok(())
        })
    }
}

/// Detaches the programs of a device and removes its pins. What does not exist is no error.
///
/// # Errors
/// If the kernel fails to. Everything else is done.
pub(super) fn release(pins: &Path, index: u32) -> Result<()> {
    let paths = HOOKS.map(|hook| pin(pins, hook, index));
    let Some(marker) = Marker::of(pins, index)? else {
        let mut result = Ok(());
        for path in paths {
            result = result.and(unpin(&path));
        }
        return result;
    };
    marker.release(index)?;
    for path in paths {
        remove(&path)?;
    }
    fs::remove_dir_all(&marker.path)
        .with_context(|| format!("cannot remove {}", marker.path.display()))
}

/// Detaches the programs of a fence from all of its devices. `pins` is the directory of its links; a missing directory is no
/// error.
///
/// # Errors
/// If the kernel fails to. Everything else is done.
pub(in crate::kernel) fn unpin_all(pins: &Path) -> Result<()> {
    let indices: BTreeSet<u32> = read(pins)?
        .iter()
        .filter_map(|path| index_of(path.file_name()?.to_str()?))
        .collect();
    let mut result = Ok(());
    for index in indices {
        result = result.and(release(pins, index));
    }
    result
}

/// The index of the device that a file is for; `None` if it is for none.
fn index_of(name: &str) -> Option<u32> {
    let (kind, rest) = name.split_once('-')?;
    let is_of_device = kind == MARKER || HOOKS.iter().any(|hook| hook.name() == kind);
    let index = rest.split('-').next().filter(|_| is_of_device)?;
    index.parse().ok()
}

/// Detaches a pinned link, which other processes may have open, and removes the pin.
pub(in crate::kernel) fn unpin(path: &Path) -> Result<()> {
    let context = || format!("cannot detach the link {}", path.display());
    match by_path::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => link_info::detach(&link.with_context(context)?).with_context(context)?,
    }
    remove(path)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn read(pins: &Path) -> Result<Vec<PathBuf>> {
    let found = entries(pins).with_context(|| format!("cannot read {}", pins.display()))?;
    Ok(found.into_iter().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_a_device_is_recognised() {
        let index = |name| index_of(name);
        assert_eq!(index("frame-3"), Some(3));
        assert_eq!(index("frame_out-12"), Some(12));
        assert_eq!(index("clsact-4-4026531840"), Some(4));
        for other in ["maps-abi-1", "egress", "frame", "frame-", "frame-x"] {
            assert_eq!(index(other), None, "{other}");
        }
    }
}
