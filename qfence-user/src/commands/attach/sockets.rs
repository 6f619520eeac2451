//! The sockets that the target's processes had before their fence: refuses those that the fence does not judge, and ends
//! the connections that the policy denies.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;
use qfence_common::{
    device::FORBIDDEN,
    listing::{DEVICE, OpenSocket},
};

use crate::{
    base::{console::notify, paths::Paths, process::helper::Apart},
    cli::Attach,
    fence::guard::Fence,
    kernel::{self, Listed},
    supervise::{
        established::{self, Connection},
        follower::Follower,
    },
    workload::{oci::runtime, taps},
};

/// AF_INET, AF_INET6, AF_PACKET, AF_VSOCK and AF_XDP (linux/socket.h).
const INET: u32 = 2;
const INET6: u32 = 10;
const PACKET: u32 = 17;
const VSOCK: u32 = 40;
const XDP: u32 = 44;

/// The most descriptors that are named.
const NAMED: usize = 20;

/// Why the fence does not judge a socket.
fn why_unjudged(socket: &OpenSocket) -> Option<String> {
    match socket.family {
        INET | INET6 if socket.is_of_the_fence == 0 => Some(format!(
            "an internet socket that was made in another cgroup (id {})",
            socket.cgroup
        )),
        PACKET => Some("a packet socket".into()),
        XDP => Some("an XDP socket".into()),
        VSOCK => Some("a vsock socket".into()),
        _ => None,
    }
}

/// The descriptors that the fence does not judge, in words; each once. Those that `is_closed` knows are left out.
fn unjudged(sockets: &[OpenSocket], is_closed: impl Fn(&OpenSocket) -> bool) -> Vec<String> {
    let named = sockets.iter().filter_map(|socket| {
        let why = why_unjudged(socket)?;
        if is_closed(socket) {
            return None;
        }
        Some(((socket.pid, socket.fd), why))
    });
    let all: BTreeMap<_, _> = named.collect();
    let words = |((pid, fd), why): (&(u32, u32), &String)| {
        format!("descriptor {fd} of process {pid} is {why}")
    };
    all.iter().map(words).collect()
}

/// Refuses sockets that the fence does not judge, or warns of them. `starting` is the first process of a container whose
/// runtime has not executed the container's program yet: what it closes before that is not the target's.
///
/// # Errors
/// If there are some, and that is not allowed.
pub(super) fn admit(
    options: &Attach,
    listed: &Listed,
    starting: Option<Pid>,
    fence: &Fence,
    paths: &Paths,
) -> Result<()> {
    // The kernel names processes by the numbers of the first PID namespace, which need not be that of this process.
    let alone = |pid: &Pid| fence.cgroup().pids().is_ok_and(|all| all == [*pid]);
    let starting = starting.filter(alone);
    let mut all = unjudged(&listed.unjudged, |socket| {
        let descriptor = i32::try_from(socket.fd);
        let closes = |(pid, descriptor)| runtime::closes(pid, descriptor, paths);
        starting.zip(descriptor.ok()).is_some_and(closes)
    });
    if listed.is_cut_off {
        all.push("there may be others: the processes of this machine have too many descriptors to look at all".into());
    }
    if all.is_empty() {
        return Ok(());
    }
    let text = list(&all, listed.are_more);
    if options.allow_foreign_sockets {
        notify(format_args!("warning: NOT FENCED: {text}"));
        return Ok(());
    }
    bail!(
        "the fence would not judge all sockets of the target: {text}. Restart the target in a cgroup that is fenced already, \
         fence a cgroup above both, or give --allow-foreign-sockets to go on without them"
    )
}

/// Refuses open devices for networks that the fence does not see. `wired` is the network namespace whose wires are fenced.
///
/// # Errors
/// If there are some, and that is not allowed.
pub(super) fn admit_devices(
    options: &Attach,
    listed: &Listed,
    wired: Option<u64>,
    paths: &Paths,
) -> Result<()> {
    let fenced = Fenced {
        here: fs::metadata("/proc/thread-self/ns/net")?.ino(),
        names: &options.device,
        wired,
    };
    let mut apart = Apart::new(&paths.proc);
    let mut all = BTreeMap::new();
    for open in listed.unjudged.iter().filter(|open| open.family == DEVICE) {
        if !is_fenced(open, &fenced, &mut apart) {
            all.insert((open.pid, open.fd), device(open));
        }
    }
    // vhost-net only serves tap devices that the process has open.
    let has_devices = !options.device.is_empty() || wired.is_some();
    let serves_fenced = has_devices && !listed.are_more;
    if serves_fenced && all.values().all(|device| device == VHOST_NET) {
        return Ok(());
    }
    if all.is_empty() {
        return Ok(());
    }
    let words = |((pid, fd), device): (&(u32, u32), &String)| {
        format!("descriptor {fd} of process {pid} is {device}")
    };
    let all: Vec<String> = all.iter().map(words).collect();
    let text = list(&all, listed.are_more);
    if options.allow_unfenced_net {
        notify(format_args!("warning: NOT FENCED: {text}"));
        return Ok(());
    }
    bail!(
        "the target has networks that the fence does not see: {text}. Start a guest with a tap device by `qfence-user exec`, \
         fence the device as well (--device NAME), or give --allow-unfenced-net to go on without it"
    )
}

/// The usual path of a device.
fn device(open: &OpenSocket) -> String {
    let known = FORBIDDEN
        .iter()
        .find(|device| (device.major, device.minor) == (open.kind, open.port));
    match known {
        Some(device) => device.path.to_owned(),
        None => format!("a tap device (/dev/tapN, {}:{})", open.kind, open.port),
    }
}

/// The device by which processes get tap devices.
const TUN: &str = "/dev/net/tun";

/// The device that serves tap devices in the kernel.
const VHOST_NET: &str = "/dev/vhost-net";

/// The tap devices that are fenced.
struct Fenced<'a> {
    /// This network namespace, and the names of those in it.
    here: u64,
    names: &'a [String],
    /// The one whose wires are fenced, and so all in it.
    wired: Option<u64>,
}

/// Whether a descriptor of a process is attached to a tap device that is fenced. One that cannot be looked at counts as one
/// that is not.
fn is_fenced(open: &OpenSocket, fenced: &Fenced<'_>, apart: &mut Apart) -> bool {
    let (Ok(pid), Ok(fd)) = (i32::try_from(open.pid), i32::try_from(open.fd)) else {
        return false;
    };
    if device(open) != TUN {
        return false;
    }
    let attached = taps::of_descriptor(Pid::from_raw(pid), fd, apart);
    let Some(tap) = attached.ok().flatten() else {
        return false;
    };
    match tap.netns == fenced.here {
        true => fenced.names.contains(&tap.name),
        false => fenced.wired == Some(tap.netns),
    }
}

/// The first of some words, and the number of the others; `are_more` is whether even more were not listed.
fn list(all: &[String], are_more: bool) -> String {
    let shown = all.len().min(NAMED);
    let mut text = all.get(..shown).unwrap_or_default().join("; ");
    if all.len() > shown {
        // Writing to a string does not fail.
        let least = if are_more { "at least " } else { "" };
        let _ = write!(text, "; and {least}{} more", all.len() - shown);
    }
    text
}

/// Ends the connections that the policy denies.
///
/// # Errors
/// If they cannot be looked for.
pub(super) fn end_denied(fence: &Fence, policy: &Follower, paths: &Paths) -> Result<()> {
    if let Err(error) = established::check(&paths.program) {
        notify(format_args!(
            "warning: connections that the policy denies are not ended: {error:#}; their packets are dropped"
        ));
        return Ok(());
    }
    let owners = kernel::owners(&fence.pins())?;
    let denied = |connection: &Connection| policy.denies(connection);
    let ended = established::end(&paths.program, fence.cgroup(), owners.fd().as_fd(), denied)
        .context("cannot end the connections that the policy denies")?;
    for connection in &ended.connections {
        notify(format_args!("ended {connection}, which the policy denies"));
    }
    for connection in &ended.standing {
        notify(format_args!(
            "warning: cannot end {connection}, whose socket a process keeps locked; its packets are dropped"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_elsewhere_and_of_lower_layers_are_not_judged() {
        let of = |family, is_of_the_fence| OpenSocket {
            family,
            is_of_the_fence,
            cgroup: 7,
            pid: 5,
            fd: family,
            ..OpenSocket::default()
        };
        let sockets = [
            of(INET, 1),
            of(INET6, 0),
            of(1, 0),
            of(16, 0),
            of(PACKET, 1),
            of(INET6, 0),
        ];
        assert_eq!(
            unjudged(&sockets, |_| false),
            [
                "descriptor 10 of process 5 is an internet socket that was made in another cgroup (id 7)",
                "descriptor 17 of process 5 is a packet socket",
            ]
        );
        assert_eq!(unjudged(&[of(VSOCK, 1), of(XDP, 1)], |_| false).len(), 2);
        let left = unjudged(&sockets, |socket| socket.fd == INET6);
        assert_eq!(left, ["descriptor 17 of process 5 is a packet socket"]);
    }

    #[test]
    fn not_all_of_many_are_named() {
        let all: Vec<String> = (0..NAMED + 3).map(|number| number.to_string()).collect();
        assert!(list(&all, false).ends_with("; 19; and 3 more"));
        assert!(list(&all, true).ends_with("; and at least 3 more"));
        assert_eq!(list(&all[..2], false), "0; 1");
    }

    #[test]
    fn devices_are_named_by_their_usual_paths() {
        let of = |kind, port| OpenSocket {
            family: DEVICE,
            kind,
            port,
            ..OpenSocket::default()
        };
        assert_eq!(device(&of(10, 200)), "/dev/net/tun");
        assert_eq!(device(&of(243, 1)), "a tap device (/dev/tapN, 243:1)");
        assert_eq!(unjudged(&[of(10, 200)], |_| false), Vec::<String>::new());
    }
}
