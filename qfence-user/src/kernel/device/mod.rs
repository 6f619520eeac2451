//! Network devices of a fence: the programs at a device, and what they know of it.
//!
//! | file | its job |
//! |---|---|
//! | `maps` | the maps of the devices, which are filled before a program is attached |
//! | `tcx` | attaches programs to a device by its index |
//! | `state` | whether the programs of a device still judge all of its frames |

pub mod maps;
pub mod state;
pub(super) mod tcx;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use qfence_common::{Hook, frame::REVERSED};

use crate::base::files::entries;

use super::{Kernel, by_path, link_info::id_of_program, within::within};

/// The hooks at a device.
pub(super) const HOOKS: [Hook; 2] = [Hook::Frame, Hook::FrameOut];

/// A device that a fence is to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its index in its network namespace.
    pub index: u32,
    /// The number of the fence in the second layer ([`Membership::slot`](super::local_in::Membership::slot)).
    pub slot: u32,
    /// Bits of [`qfence_common::frame`].
    pub flags: u32,
    /// The MAC addresses that the guest may use, as numbers.
    pub macs: Vec<u64>,
    /// The host's addresses in the guest's network.
    pub gateways: Vec<IpAddr>,
}

/// The programs that were attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The id of the program for frames from the guest.
    pub frame: u32,
    /// The id of the program for frames to the guest.
    pub frame_out: u32,
}

/// The links of a device, open.
pub(super) struct Links(#[expect(dead_code, reason = "held, not used")] [OwnedFd; HOOKS.len()]);

/// The path of the pin of a device's link, in the directory of a fence's links.
#[must_use]
pub fn pin(pins: &Path, hook: Hook, index: u32) -> PathBuf {
    pins.join(format!("{}-{index}", hook.name()))
}

/// Makes a fence judge a device of a network namespace (the caller's for `None`): fills the maps, attaches the programs
/// before all others, and pins their links in `pins`.
///
/// # Errors
/// If a step fails. Nothing of it is left then.
pub fn attach(
    kernel: &mut Kernel,
    netns: Option<BorrowedFd<'_>>,
    device: &Wanted,
    pins: &Path,
) -> Result<Attached> {
    let context = || {
        format!(
            "cannot fence the network device with the index {}",
            device.index
        )
    };
    let attached = try_attach(kernel, netns, device, pins).with_context(context);
    attached.inspect_err(|_| {
        // The first error is reported.
        let _ = detach(kernel, device.index, pins);
    })
}

fn try_attach(
    kernel: &mut Kernel,
    netns: Option<BorrowedFd<'_>>,
    device: &Wanted,
    pins: &Path,
) -> Result<Attached> {
    kernel.devices.fill(device)?;
    let mut ids = [0; HOOKS.len()];
    let mut links = Vec::new();
    for (hook, id) in HOOKS.into_iter().zip(&mut ids) {
        let way = tcx::way(hook, device.flags & REVERSED != 0);
        let program = kernel.frame_program(hook)?;
        *id = id_of_program(program)?;
        let link = within(netns, || tcx::attach(program, device.index, way));
        let link =
            link.with_context(|| format!("cannot attach the program for {}", hook.name()))?;
        let path = pin(pins, hook, device.index);
        by_path::pin(&link, &path)
            .with_context(|| format!("cannot pin a link at {}", path.display()))?;
        links.push(link);
    }
    if let Ok(links) = links.try_into() {
        kernel.device_links.insert(device.index, Links(links));
    }
    let [frame, frame_out] = ids;
    Ok(Attached { frame, frame_out })
}

/// Detaches the programs from a device, and forgets it. A device that does not exist any more is no error.
///
/// # Errors
/// If the kernel fails to. Everything else is done.
pub fn detach(kernel: &mut Kernel, index: u32, pins: &Path) -> Result<()> {
    kernel.device_links.remove(&index);
    let unpinned = HOOKS.map(|hook| unpin(&pin(pins, hook, index)));
    kernel.devices.forget(index)?;
    unpinned.into_iter().collect()
}

/// Detaches the programs of a fence from all of its devices, whose links are pinned in a directory. A missing directory is
/// no error.
///
/// # Errors
/// If the kernel fails to.
pub(super) fn unpin_all(pins: &Path) -> Result<()> {
    let found = entries(pins).with_context(|| format!("cannot read {}", pins.display()))?;
    let mut result = Ok(());
    for entry in found {
        let name = entry.file_name();
        let hook = name.to_str().and_then(|name| name.split_once('-'));
        if hook.is_some_and(|(hook, _)| HOOKS.iter().any(|ours| ours.name() == hook)) {
            result = result.and(unpin(&entry.path()));
        }
    }
    result
}

/// Detaches a pinned link, which other processes may have open, and removes the pin.
pub(super) fn unpin(path: &Path) -> Result<()> {
    let context = || format!("cannot detach the link {}", path.display());
    match by_path::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => super::link_info::detach(&link.with_context(context)?).with_context(context)?,
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}
