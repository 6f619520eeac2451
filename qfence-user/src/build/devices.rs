//! Fences the network devices of a new fence: both layers, before anything can be sent.

use anyhow::Result;

use super::Loaded;
use crate::{
    base::paths::Paths,
    fence::devices::FencedDevice,
    host::devices::Devices,
    kernel::local_in::{self, Membership},
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
            device.fence(self.policy.kernel(), &mut membership, found, &pins)?;
        }
        Ok(membership)
    }
}
