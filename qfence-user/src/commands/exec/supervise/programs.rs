//! What the programs of the fence are to do.

use crate::{
    build::Programs,
    cli::Exec,
    commands::exec::{devices::Guests, managed::Managed},
    confinement::Enforced,
    kernel::{LogAllowed, NetworkDevices},
};

/// Returns what the options, the devices and the closures of the fence ask of its programs.
pub(super) fn of(
    options: &Exec,
    guests: &Guests,
    enforced: Enforced,
    managed: &Managed,
    trace: bool,
) -> Programs {
    Programs {
        deny: options.deny_with,
        allow_raw: options.allow_raw,
        allow_devices: match options.allow_unfenced_net {
            true => NetworkDevices::All,
            false if guests.uses_vhost => NetworkDevices::VhostNet,
            false => NetworkDevices::None,
        },
        allow_netns: options.allow_foreign_netns,
        node_netns: 0,
        log_allowed: LogAllowed::together(options.log_allowed),
        enforced: Enforced {
            options_unseen: options.allow_compat_sockopt,
            ..enforced
        },
        trace,
        managers: managed.names().cloned(),
        judges_frames: !guests.fenced.is_empty(),
        serving: guests
            .fenced
            .iter()
            .map(|device| device.name.clone())
            .collect(),
        lists: false,
    }
}
