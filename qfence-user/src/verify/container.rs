//! A network namespace that the same user made outside of the fence, like that of a rootless container. Its way out
//! would also be outside of the fence.

use std::{fs::File, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::calls::{Call, Called};

/// The arguments of the hidden verb that makes such a namespace and stays in it.
pub const MAKE: [&str; 1] = ["make-namespace"];

/// A call that joins the network namespace of a process and makes a socket there.
#[must_use]
pub fn call(pid: i32) -> Call {
    Call {
        attempt: "a socket in a namespace from outside",
        words: vec!["join-namespace".into(), pid.to_string()],
        late: &[],
        closure: "landlock",
        short: true,
    }
}

/// Moves this process, which must have one thread, into a new user and a new network namespace.
#[must_use]
pub fn make() -> Called {
    Called::make(|| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET))
}

/// Moves this process, which must have one thread, into the user and network namespaces of another, and makes a socket.
#[must_use]
pub fn join(pid: i32) -> Called {
    Called::make(|| {
        let open = |name: &str| -> nix::Result<OwnedFd> {
            let file = File::open(format!("/proc/{pid}/ns/{name}"));
            let file = file.map_err(|error| {
                Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EINVAL as i32))
            })?;
            Ok(file.into())
        };
        let (user, net) = (open("user")?, open("net")?);
        setns(user, CloneFlags::CLONE_NEWUSER)?;
        setns(net, CloneFlags::CLONE_NEWNET)?;
        socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
    })
}
