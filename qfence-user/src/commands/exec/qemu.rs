//! What a QEMU that is the command means for its fence.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::{
    base::console::notify,
    cli::Exec,
    qemu::{self, executables, guestfwd::Forward},
    record::guest::Qemu,
    supervise::follower::Follower,
};

/// Refuses a QEMU with a network that the fence does not see, unless it is to have it; returns the
/// targets that its guest is led to, and the QEMU, as the record needs it.
pub(super) fn admit(options: &Exec) -> Result<(Vec<Forward>, Option<Qemu>)> {
    let found = qemu::inspect(
        &options.command,
        executables::resolve,
        executables::read_again_later,
    );
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
    let qemu = found.qemu.map(|found| Qemu {
        guest: found.guest,
        is_command: found.index == 0,
        file: executables::resolve(&options.command[found.index])
            .and_then(|path| executables::FileId::of(&path)),
        process: None,
    });
    Ok((found.forwards, qemu))
}

/// Names the targets that the guest will not reach, for all that the user asked for them.
pub(super) fn hint(forwards: &[Forward], policy: &Follower) {
    for Forward {
        argument,
        address,
        port,
    } in forwards
    {
        if policy.refuses(*address, *port) {
            let target = SocketAddr::new(*address, *port);
            notify(format_args!(
                "hint: guestfwd to {target} ({argument}) is refused: give --allow tcp:{target} to \
                 except it; QEMU connects when it starts, and ends if it cannot"
            ));
        }
    }
}
