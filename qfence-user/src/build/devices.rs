//! Fences the network devices of a fence: both layers, before anything can be sent.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Loaded;
use crate::{
    base::paths::Paths,
    fence::devices::FencedDevice,
    host::devices::Devices,
    kernel::{
        Kernel, device,
        local_in::{self, Membership},
    },
};

impl Loaded<'_> {
    /// Fences the network devices. `found` has the host's addresses on them.
    ///
    /// # Errors
    /// If a layer cannot be had. What was made remains until the fence is removed.
    pub fn attach_devices(
        &mut self,
        devices: &[FencedDevice],
        found: &Devices,
        paths: &Paths,
    ) -> Result<Membership> {
        let (name, pins) = (self.fence.name(), self.fence.pins());
        let mut membership = local_in::join(&paths.bpffs, &paths.run, None, name)?;
        for device in devices {
            fence(self.policy.kernel(), &mut membership, device, found, &pins)?;
        }
        Ok(membership)
    }
}

/// Fences one network device. The second layer is first: it does not depend on the first.
///
/// # Errors
/// If a layer cannot be had.
pub fn fence(
    kernel: &mut Kernel,
    membership: &mut Membership,
    device: &FencedDevice,
    found: &Devices,
    pins: &Path,
) -> Result<()> {
    let context = || format!("the network device {} is not fenced", device.name);
    membership.guard(device.index).with_context(context)?;
    for mac in &device.macs {
        let guarded = membership.guard_mac(device.index, mac.number());
        guarded.with_context(context)?;
    }
    let here = found.with_index(device.index);
    let gateways = here.map(|here| found.gateways(here)).unwrap_or_default();
    let wanted = device.wanted(membership.slot(), &gateways);
    device::attach(kernel, None, &wanted, pins).with_context(context)?;
    Ok(())
}
