//! The network devices of guests whose QEMU others start: finds them among those of this host.

use anyhow::{Context as _, Result, ensure};
use qfence_common::abi::FRAME_DEVICES;

use crate::{
    base::mac::Mac,
    fence::devices::FencedDevice,
    host::devices::{Devices, Kind},
    stored_policy::netns,
};

/// A network device of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Guest {
    /// The name of the device.
    pub(in crate::commands) device: String,
    /// The MAC address of the guest. Without it, the guest's first frame decides.
    pub(in crate::commands) mac: Option<Mac>,
}

/// Finds the devices.
///
/// # Errors
/// If one does not exist, or leads to something else than a guest.
pub(super) fn find(guests: &[Guest]) -> Result<Vec<FencedDevice>> {
    if guests.is_empty() {
        return Ok(Vec::new());
    }
    let most = usize::try_from(FRAME_DEVICES).unwrap_or(usize::MAX);
    ensure!(
        guests.len() <= most,
        "a fence has room for {most} network devices"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an event loop")?;
    let found = runtime.block_on(Devices::read())?;
    let here = netns()?;
    guests
        .iter()
        .map(|guest| fenced(guest, &found, here))
        .collect()
}

fn fenced(guest: &Guest, found: &Devices, netns: u64) -> Result<FencedDevice> {
    let name = &guest.device;
    let device = found.named(name);
    let device = device
        .with_context(|| format!("there is no network device {name} in this network namespace"))?;
    ensure!(
        matches!(device.kind, Kind::Tap | Kind::Macvtap),
        "{name} is {}, and no tap or macvtap device",
        device.kind
    );
    Ok(FencedDevice {
        name: name.clone(),
        index: device.index,
        netns,
        is_reversed: device.kind == Kind::Macvtap,
        macs: guest.mac.into_iter().collect(),
        learns_mac: guest.mac.is_none(),
        learnt: None,
        is_made: false,
    })
}
