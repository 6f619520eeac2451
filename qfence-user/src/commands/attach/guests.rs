//! The network devices of guests whose QEMU others start.

use anyhow::{Context as _, Result, ensure};

use crate::{
    base::mac::Mac,
    commands::devices::fenced,
    fence::devices::FencedDevice,
    host::devices::{Devices, Kind},
};

/// A network device of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Guest {
    /// The name of the device.
    pub(in crate::commands) device: String,
    /// The MAC address of the guest. Without it, the guest's first frame decides.
    pub(in crate::commands) mac: Option<Mac>,
}

impl Guest {
    /// Its device, as it is to be fenced. `found` are the devices of the network namespace `netns`.
    ///
    /// # Errors
    /// If it does not exist, or leads to something else than a guest.
    pub(super) fn to_fence(&self, found: &Devices, netns: u64) -> Result<FencedDevice> {
        let name = &self.device;
        let device = found.named(name);
        let device = device.with_context(|| {
            format!("there is no network device {name} in this network namespace")
        })?;
        ensure!(
            matches!(device.kind, Kind::Tap | Kind::Macvtap),
            "{name} is {}, and no tap or macvtap device",
            device.kind
        );
        let macs = self.mac.into_iter().collect();
        Ok(fenced(device, netns, macs, self.mac.is_none()))
    }
}
