//! The network devices of guests that options name (`--device`).

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use qfence_common::abi::FRAME_DEVICES;

use crate::{
    base::{console::notify, mac::Mac},
    fence::devices::FencedDevice,
    host::devices::{Device, Devices, Kind},
    stored_policy::netns,
};

/// Reads the network devices of this thread's network namespace. Not to be called within an event loop.
///
/// # Errors
/// If they cannot be read.
pub(super) fn read() -> Result<Devices> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an event loop")?;
    Ok(runtime.block_on(Devices::read())?)
}

/// Fails if there are more devices than a fence has room for.
pub(super) fn ensure_room(all: &[FencedDevice]) -> Result<()> {
    let most = usize::try_from(FRAME_DEVICES).unwrap_or(usize::MAX);
    ensure!(
        all.len() <= most,
        "a fence has room for {most} network devices"
    );
    Ok(())
}

/// Adds the devices of these names to those that are to be fenced. Their guests may use the addresses `macs`, or else that of
/// the first frame.
///
/// # Errors
/// If there is none of that name, it is of a kind that cannot be fenced, or there are too many.
pub(super) fn add_named(
    all: &mut Vec<FencedDevice>,
    names: &[String],
    macs: &[Mac],
    found: &Devices,
) -> Result<()> {
    let here = netns()?;
    for name in names {
        let device = found.named(name).with_context(|| {
            format!("--device: there is no network device {name} in this network namespace")
        })?;
        may_fence(device)?;
        if all.iter().any(|fenced| fenced.index == device.index) {
            continue;
        }
        // The guest of a macvtap device has its address.
        let own = device.mac.filter(|_| device.kind == Kind::Macvtap);
        let macs: BTreeSet<Mac> = macs.iter().copied().chain(own).collect();
        let learns = macs.is_empty();
        all.push(fenced(device, here, macs, learns));
    }
    ensure_room(all)
}

/// A device that is to be fenced.
pub(super) fn fenced(
    device: &Device,
    netns: u64,
    macs: BTreeSet<Mac>,
    learns_mac: bool,
) -> FencedDevice {
    FencedDevice {
        name: device.name.clone(),
        index: device.index,
        netns,
        is_reversed: device.kind == Kind::Macvtap,
        macs: macs.into_iter().collect(),
        learns_mac,
        learnt: None,
        is_made: false,
        is_of_pod: false,
    }
}

/// Fails for a device that no guest is behind.
fn may_fence(device: &Device) -> Result<()> {
    let Device { name, kind, .. } = device;
    let why = match kind {
        Kind::Tap | Kind::Macvtap | Kind::Veth => {
            if !device.is_up {
                hint_down(device);
            }
            return Ok(());
        }
        Kind::Loopback => "what passes it is the host's own",
        Kind::Bridge => "the host's own frames pass it; give the devices that are its ports",
        Kind::Card => "it leads to other computers, not to a guest",
        Kind::Tun => "it carries packets without Ethernet headers; use a tap device",
        Kind::Other(_) => {
            "qfence does not know what is behind it; tap, macvtap and veth devices can be fenced"
        }
    };
    bail!("--device: {name} is {kind}: {why}")
}

pub(super) fn hint_down(device: &Device) {
    let name = &device.name;
    notify(format_args!(
        "hint: the network device {name} is down; `ip link set {name} up` sets it up"
    ));
}
