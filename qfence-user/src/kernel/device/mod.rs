//! Network devices of a fence: the programs at a device, and what they know of it.
//!
//! | file | its job |
//! |---|---|
//! | `maps` | the maps of the devices, which are filled before a program is attached |
//! | `tcx` | attaches programs to a device by its index (Linux 6.6) |
//! | `classic` | the same by filters of traffic control, for older kernels |
//! | `pins` | what is pinned for a device, and how it is removed |
//! | `trial` | whether this kernel can do it |
//! | `state` | whether the programs of a device still judge all of its frames |

mod classic;
pub mod maps;
mod pins;
pub mod state;
mod table;
pub(super) mod tcx;
#[cfg(test)]
mod tests;
pub mod trial;

use std::{
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
pub use pins::pin;
pub(super) use pins::{unpin, unpin_all};
use qfence_common::{
    Hook,
    frame::{MARKS_EXCEPTIONS, REVERSED},
};

use self::{
    pins::{Marker, release},
    tcx::INGRESS,
};
use super::{
    Kernel, by_path,
    link_info::id_of_program,
    load::NO_FRAMES,
    local_in,
    within::{number_of, within},
};

/// The hooks at a device.
pub(super) const HOOKS: [Hook; 2] = [Hook::Frame, Hook::FrameOut];

/// How programs are attached to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By links (tcx, Linux 6.6).
    Tcx,
    /// By filters of traffic control.
    Classic,
}

impl Method {
    /// That of this kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        /// The index of the loopback device in every network namespace.
        const LOOPBACK: u32 = 1;
        match state::query(LOOPBACK, INGRESS.0) {
            // Older kernels do not know the direction.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Self::Classic,
            _ => Self::Tcx,
        }
    }
}

/// A device that a fence is to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its index in its network namespace.
    pub index: u32,
    /// The number of the fence in the second layer ([`Membership::slot`](super::local_in::Membership::slot)).
    pub slot: u32,
    /// Bits of [`qfence_common::frame`]. [`attach`] adds [`MARKS_EXCEPTIONS`] where the second layer needs it.
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
pub(super) struct Links(#[expect(dead_code, reason = "held, not used")] Vec<OwnedFd>);

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
    attach_by(Method::of_this_kernel(), kernel, netns, device, pins)
}

fn attach_by(
    method: Method,
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
    let attached = try_attach(method, kernel, netns, device, pins).with_context(context);
    attached.inspect_err(|_| {
        // The first error is reported.
        let _ = detach(kernel, device.index, pins);
    })
}

fn try_attach(
    method: Method,
    kernel: &mut Kernel,
    netns: Option<BorrowedFd<'_>>,
    device: &Wanted,
    pins: &Path,
) -> Result<Attached> {
    ensure!(kernel.reads_frames, NO_FRAMES);
    let mut flags = device.flags;
    if local_in::Method::of_this_kernel() == local_in::Method::Nft {
        flags |= MARKS_EXCEPTIONS;
    }
    kernel.devices.fill(device, flags)?;
    if method == Method::Classic {
        let marker = Marker::make(pins, device.index, number_of(netns)?)?;
        if within(netns, || classic::prepare(device.index))? {
            marker.made_the_qdisc()?;
        }
    }
    let mut ids = [0; HOOKS.len()];
    let mut links = Vec::new();
    for (hook, id) in HOOKS.into_iter().zip(&mut ids) {
        let way = tcx::way(hook, flags & REVERSED != 0);
        let program = kernel.frame_program(hook)?;
        *id = id_of_program(program)?;
        let path = pin(pins, hook, device.index);
        let pinned = match method {
            Method::Tcx => {
                let link = within(netns, || tcx::attach(program, device.index, way))
                    .with_context(|| not_attached(hook))?;
                let pinned = by_path::pin(&link, &path);
                links.push(link);
                pinned
            }
            Method::Classic => {
                within(netns, || classic::attach(program, device.index, way))
                    .with_context(|| not_attached(hook))?;
                by_path::pin(program, &path)
            }
        };
        pinned.with_context(|| format!("cannot pin a link at {}", path.display()))?;
    }
    kernel.device_links.insert(device.index, Links(links));
    let [frame, frame_out] = ids;
    Ok(Attached { frame, frame_out })
}

fn not_attached(hook: Hook) -> String {
    format!("cannot attach the program for {}", hook.name())
}

/// Detaches the programs from a device, and forgets it. A device that does not exist any more is no error.
///
/// # Errors
/// If the kernel fails to. Everything else is done.
pub fn detach(kernel: &mut Kernel, index: u32, pins: &Path) -> Result<()> {
    kernel.device_links.remove(&index);
    let released = release(pins, index);
    kernel.devices.forget(index)?;
    released
}
