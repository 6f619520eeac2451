//! Checks a command that is a QEMU.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::{
    base::console::notify,
    cli::Exec,
    qemu::{self, executables, guestfwd::Forward},
    record::guest::Qemu,
    supervise::follower::Follower,
};

/// Refuses a QEMU with a network that the fence does not see, unless the user allows it. Returns the targets of
/// `guestfwd`, and the QEMU for the record.
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
    Ok((found.forwards, qemu))
}

/// Reports `guestfwd` targets that the policy refuses, although the user has requested them.
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
                "hint: guestfwd to {target} ({argument}) is refused; give --allow tcp:{target} to \
                 allow it; QEMU connects when it starts, and exits if that fails"
            ));
        }
    }
}
