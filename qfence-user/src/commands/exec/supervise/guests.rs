//! Fences the network devices of a command's guests.

use anyhow::Result;

use crate::{
    base::paths::Paths,
    build::Loaded,
    cli::Exec,
    commands::exec::{devices::Guests, words::step},
    host::{devices::FollowedDevices, subscription::Subscription, watcher::Watcher},
    kernel::local_in::Membership,
};

/// The devices of the host, and the fence in the second layer.
pub(super) struct Guarded {
    pub(super) host: Subscription<FollowedDevices>,
    pub(super) membership: Membership,
}

/// Fences the devices by both layers, and then sets those up that were made.
///
/// # Errors
/// If a device cannot be fenced or set up.
pub(super) async fn fence(
    options: &Exec,
    guests: &Guests,
    loaded: &mut Loaded<'_>,
    watcher: &Watcher,
    paths: &Paths,
) -> Result<Guarded> {
    let mut host = watcher.devices();
    let found = host.reading().await?;
    let membership = loaded.attach_devices(&guests.fenced, &found, paths)?;
    for device in &guests.fenced {
        step(
            options,
            format_args!("fenced the network device {}", device.name),
        );
    }
    guests.set_up().await?;
    Ok(Guarded { host, membership })
}
