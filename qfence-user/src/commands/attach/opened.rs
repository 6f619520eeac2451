//! Finds out who opened the TCP connections that stood before the fence, and notes those of the fence: a connection without
//! a note counts as one that a listener has accepted, now and for every later policy.
//!
//! The numbers of a socket show it (`qfence_common::listing::Shown`), and a process that expects the fence can forge them: it
//! lets a listener make a socket, disconnects it, opens a connection with it, and lets the own machine discard a byte (a
//! source route without a next hop). So the other end is asked, too, if it is on this machine.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nameindex;
use qfence_common::listing::{
    ACCEPTED, ACCEPTED_BITS, CHANGING, NOT_FOUND, NOTE, NOTE_ANYWAY, OPENED, Question, TELL,
};

use crate::{
    base::console::notify,
    fence::guard::Fence,
    kernel::{self, Kernel, within::within},
    supervise::established::{self, Candidate, Connection},
};

/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// How often a socket is asked whose numbers change, and the pause after each time. Then it counts as opened by the fence.
const READINGS: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// How often a socket may not be found at its addresses, before its connection is ended.
const MISSES: u32 = 2;

/// Notes the owner of every TCP connection that the fence has opened. Ends those whose owner cannot be noted.
///
/// # Errors
/// If they cannot be looked for.
pub(super) fn note(fence: &Fence, kernel: &mut Kernel, program: &Path) -> Result<()> {
    let owners = kernel::owners(&fence.pins())?;
    let here = File::open("/proc/thread-self/ns/net").context("cannot open a network namespace")?;
    let mut asker = Asker {
        kernel,
        here: &here,
        missed: HashMap::new(),
        failed: None,
    };
    let must_end = |candidate: &Candidate<'_>| asker.must_end(candidate);
    let ended = established::end_unowned(program, fence.cgroup(), owners.fd().as_fd(), must_end);
    if let Some(error) = asker.failed {
        return Err(error);
    }
    let ended = ended.context("cannot look for connections without an owner")?;
    let all = ended.connections.iter().chain(&ended.standing);
    for connection in all {
        notify(format_args!(
            "ended {connection}, for which no owner could be noted"
        ));
    }
    Ok(())
}

/// Asks about connections without an owner.
struct Asker<'a> {
    kernel: &'a mut Kernel,
    /// The network namespace of this process.
    here: &'a File,
    /// How often each socket was not found, by its namespace and cookie.
    missed: HashMap<(u64, [u8; 8]), u32>,
    /// The first error. Nothing is asked after it.
    failed: Option<anyhow::Error>,
}

impl Asker<'_> {
    /// Notes the owner of a connection that the fence has opened. Returns whether it must be ended instead.
    fn must_end(&mut self, candidate: &Candidate<'_>) -> bool {
        if self.failed.is_some() {
            return false;
        }
        self.note(candidate).unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }

    fn note(&mut self, candidate: &Candidate<'_>) -> Result<bool> {
        let mut answer = self.ask(candidate, NOTE)?;
        let is_opened = match kind(answer) {
            CHANGING => true,
            ACCEPTED => !self.is_plausible(candidate, answer >> ACCEPTED_BITS)?,
            _ => false,
        };
        if is_opened {
            answer = self.ask(candidate, NOTE_ANYWAY)?;
        }
        match kind(answer) {
            ACCEPTED | OPENED => Ok(false),
            // It has ended meanwhile, or the kernel finds another one at its addresses.
            NOT_FOUND => {
                let inode = candidate.namespace.metadata()?.ino();
                let misses = self.missed.entry((inode, candidate.cookie)).or_default();
                *misses += 1;
                Ok(*misses >= MISSES)
            }
            _ => Ok(true),
        }
    }

    /// Whether the other end of a connection permits that a listener has accepted it. `device` is the device by which its
    /// peer completed it.
    fn is_plausible(&mut self, candidate: &Candidate<'_>, device: u32) -> Result<bool> {
        let there = self.is_accepted_in(candidate.namespace.as_fd(), &candidate.connection)?;
        let here = self.is_accepted_in(self.here.as_fd(), &candidate.connection)?;
        // The peer of what came by the loopback device is in the same namespace.
        Ok(match (there, here) {
            (Some(true), _) | (_, Some(true)) => false,
            (None, _) => device != LOOPBACK,
            (Some(false), _) => true,
        })
    }

    /// Whether a listener has accepted the connection at its other end, in a network namespace; `None` if that is not
    /// there.
    fn is_accepted_in(
        &mut self,
        namespace: BorrowedFd<'_>,
        connection: &Connection,
    ) -> Result<Option<bool>> {
        let question = question(connection.remote, connection.local, 0, TELL);
        let kernel = &mut *self.kernel;
        let remote = connection.remote.ip();
        within(Some(namespace), move || {
            if !is_local(remote) {
                return Ok(None);
            }
            // The lookup finds a socket that is bound to a device by that device only.
            for device in devices()? {
                match kind(ask_steadily(kernel, &question, device)?) {
                    NOT_FOUND => {}
                    OPENED => return Ok(Some(false)),
                    // Numbers that change are no proof of a peer that has opened the connection.
                    _ => return Ok(Some(true)),
                }
            }
            Ok(None)
        })
    }

    fn ask(&mut self, candidate: &Candidate<'_>, wish: u32) -> Result<u32> {
        let Connection { local, remote, .. } = candidate.connection;
        let cookie = u64::from_ne_bytes(candidate.cookie);
        let question = question(local, remote, cookie, wish);
        let kernel = &mut *self.kernel;
        within(Some(candidate.namespace.as_fd()), move || {
            ask_steadily(kernel, &question, candidate.device)
        })
    }
}

/// Asks until the numbers of the socket do not change.
fn ask_steadily(kernel: &mut Kernel, question: &Question, device: u32) -> Result<u32> {
    let mut answer = kernel.ask_who_opened(question, device)?;
    for _ in 0..READINGS {
        if kind(answer) != CHANGING {
            break;
        }
        sleep(PAUSE);
        answer = kernel.ask_who_opened(question, device)?;
    }
    Ok(answer)
}

/// An answer without the index of a device.
fn kind(answer: u32) -> u32 {
    answer & ((1 << ACCEPTED_BITS) - 1)
}

fn question(local: SocketAddr, remote: SocketAddr, cookie: u64, wish: u32) -> Question {
    Question {
        header: [0; 16],
        local: mapped(local.ip()),
        remote: mapped(remote.ip()),
        cookie,
        local_port: local.port().to_be_bytes(),
        remote_port: remote.port().to_be_bytes(),
        wish,
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Whether an address may be one of this thread's network namespace: nothing can be bound to others, unless
/// net.ipv4.ip_nonlocal_bind permits it. A link-local address has no scope here.
fn is_local(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    // Any other error, such as for want of ports, which a process can hold, says nothing about the address.
    let is_elsewhere = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    is_link_local || !UdpSocket::bind((address, 0)).is_err_and(|error| is_elsewhere(&error))
}

/// The devices of this thread's network namespace: none, and each.
fn devices() -> Result<Vec<u32>> {
    let all = if_nameindex().context("cannot list network devices")?;
    let each = all.iter().map(nix::net::if_::Interface::index);
    Ok([0].into_iter().chain(each).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_addresses_as_the_kernel_has_them() {
        let local = "10.0.0.1:80".parse().unwrap();
        let remote = "[fe80::1]:256".parse().unwrap();
        let question = question(local, remote, 7, TELL);
        assert_eq!(question.local[10..], [0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(question.remote[..2], [0xfe, 0x80]);
        assert_eq!(
            (question.local_port, question.remote_port),
            ([0, 80], [1, 0])
        );
    }

    #[test]
    fn only_addresses_of_this_host_are_local() {
        assert!(is_local(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_local(IpAddr::from([192, 0, 2, 77])));
    }

    #[test]
    fn an_answer_has_a_kind_and_a_device() {
        let answer = ACCEPTED | (12 << ACCEPTED_BITS);
        assert_eq!((kind(answer), answer >> ACCEPTED_BITS), (ACCEPTED, 12));
    }
}
