//! The network devices that are fenced besides the target, or instead of one.

use std::sync::mpsc::{Sender, channel};

use anyhow::Result;

use super::{Subject, step};
use crate::{
    base::paths::Paths,
    build::Loaded,
    cli::Attach,
    commands::devices::{add_named, ensure_room, read},
    fence::{description::Description, devices::FencedDevice, guard::Fence},
    host::{devices::FollowedDevices, subscription::Subscription, watcher::Watcher},
    kernel::local_in::{Drained, Membership},
    record::{devices::DeviceNames, reader::Sources},
    stored_policy::netns,
    supervise::devices::{DeviceWatch, Given},
};

/// Finds the devices that the options name, and those of guests; for a wire, its end here.
///
/// # Errors
/// If one does not exist or cannot be fenced, or there are too many.
pub(super) fn find(options: &Attach, subject: Subject<'_>) -> Result<Vec<FencedDevice>> {
    let guests = subject.guests;
    if let Some(wire) = subject.wire {
        return Ok(vec![wire.device.clone()]);
    }
    let mut devices = Vec::new();
    if options.device.is_empty() && guests.is_empty() {
        return Ok(devices);
    }
    let found = read()?;
    add_named(&mut devices, &options.device, &options.mac, &found)?;
    let here = netns()?;
    for guest in guests {
        devices.push(guest.to_fence(&found, here)?);
    }
    ensure_room(&devices)?;
    Ok(devices)
}

/// Devices whose frames are recorded, and that are not fenced yet.
pub(super) struct Recorded {
    devices: Vec<FencedDevice>,
    names: DeviceNames,
    drops: Sender<Drained>,
}

impl Recorded {
    /// Has the record show these devices by their names.
    pub(super) fn new(devices: Vec<FencedDevice>, sources: &mut Sources) -> Self {
        let (drops, dropped) = channel();
        if !devices.is_empty() {
            sources.drops = Some(dropped);
        }
        Self {
            names: sources.devices.clone(),
            devices,
            drops,
        }
    }

    /// Fences them, by both layers.
    ///
    /// # Errors
    /// If a layer cannot be had.
    pub(super) async fn fence(
        self,
        options: &Attach,
        loaded: &mut Loaded<'_>,
        watcher: &Watcher,
        paths: &Paths,
    ) -> Result<Option<Fenced>> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        let mut host = watcher.devices();
        let found = host.reading().await?;
        let membership = loaded.attach_devices(&self.devices, &found, paths)?;
        for device in &self.devices {
            self.names.set(device.index, &device.name);
            step(
                options,
                format_args!("fenced the network device {}", device.name),
            );
        }
        Ok(Some(Fenced {
            recorded: self,
            host,
            membership,
        }))
    }
}

/// Devices that are fenced.
pub(super) struct Fenced {
    recorded: Recorded,
    host: Subscription<FollowedDevices>,
    membership: Membership,
}

impl Fenced {
    /// Watches them from now on. `description` is that of the fence.
    pub(super) fn watch(self, fence: &Fence, description: Description) -> DeviceWatch<'_> {
        let Recorded {
            devices,
            names,
            drops,
        } = self.recorded;
        DeviceWatch::new(Given {
            devices,
            host: self.host,
            membership: self.membership,
            pins: fence.pins(),
            drops,
            names,
            describe: Box::new(move |devices| {
                let mut description = description.clone();
                description.devices = devices.to_vec();
                fence.describe(&description)
            }),
        })
    }
}
