//! A network namespace of the same user's that was made outside of the fence, as a rootless container's is. Its way out
//! would be outside, too.

use std::{fs::File, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::calls::{Call, Called};

/// What the hidden verb is told, to make one and to stay in it.
pub const MAKE: [&str; 1] = ["make-namespace"];

/// To join that of a process and to make a socket there.
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

/// Moves this process, which has one thread, into namespaces of its own.
#[must_use]
pub fn make() -> Called {
    Called::make(|| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET))
}

/// Moves this process, which has one thread, into those of another, and makes a socket.
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
