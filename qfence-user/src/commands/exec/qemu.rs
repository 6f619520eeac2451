//! Checks a command that is a QEMU.

use anyhow::{Result, bail};

use super::hints::Servers;
use crate::{
    base::console::notify,
    cli::Exec,
    qemu::{self, executables, taps::Tap},
    record::guest::Qemu,
};

/// Refuses a QEMU with a network that the fence does not see, unless the user allows it. Returns the servers that
/// it connects to, and the QEMU for the record.
pub(super) fn admit(options: &Exec) -> Result<(Servers, Option<Qemu>)> {
    let mut found = qemu::inspect(
        &options.command,
        executables::resolve,
        executables::read_again_later,
    );
    found.doors.extend(found.taps.iter().map(Tap::door));
    if options.allow_unfenced_net {
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
    Ok((servers, qemu))
}
