//! Checks a command that is a QEMU.

use anyhow::{Result, bail, ensure};

use super::hints::Servers;
use crate::{
    base::console::notify,
    cli::Exec,
    qemu::{self, executables, taps::Tap},
    record::guest::Qemu,
};

/// A QEMU that was admitted, as far as the command is one.
pub(super) struct Admitted {
    /// The servers that it connects to.
    pub(super) servers: Servers,
    /// The QEMU, for the record.
    pub(super) qemu: Option<Qemu>,
    /// The tap devices that are to be fenced.
    pub(super) taps: Vec<Tap>,
}

/// Refuses a QEMU with a network that the fence does not see, unless the user allows it.
///
/// # Errors
/// If it is refused.
pub(super) fn admit(options: &Exec) -> Result<Admitted> {
    let mut found = qemu::inspect(
        &options.command,
        executables::resolve,
        executables::read_again_later,
    );
    if options.allow_unfenced_net {
        ensure!(
            options.devices.tap.is_empty(),
            "--tap has no effect with --allow-unfenced-net, with which a tap device is not fenced: remove one of them"
        );
        let fenced = &options.devices.device;
        let taps = found.taps.drain(..);
        let unfenced = taps.filter(|tap| !fenced.contains(&tap.name));
        found.doors.extend(unfenced.map(|tap| tap.door()));
        for door in &found.doors {
            notify(format_args!("warning: {}", door.warning()));
        }
    } else if let Some((last, others)) = found.doors.split_last() {
        for door in others {
            notify(format_args!("error: {}", door.refusal()));
        }
        bail!("{}", last.refusal());
    }
    if found.daemonizes && !options.keep {
        notify(
            "hint: with -daemonize the command ends as soon as the guest runs, and qfence then ends the guest with the \
             fence; give --keep to keep both, or leave out -daemonize",
        );
    }
    let qemu = found.qemu.map(|found| Qemu {
        guest: found.guest,
        is_command: found.index == 0,
        file: executables::resolve(&options.command[found.index])
            .and_then(|path| executables::FileId::of(&path)),
        process: None,
    });
    let servers = Servers {
        forwards: found.forwards,
        clients: found.clients,
    };
    Ok(Admitted {
        servers,
        qemu,
        taps: found.taps,
    })
}
