//! Proves that a fence covers the sockets that are made in it. The child does this before it executes anything.
//!
//! Attached programs and a process in the cgroup are not sufficient. Before Linux 5.15 a socket has one field for its
//! cgroup v2 and its class of cgroup v1. Once any process uses net_cls or net_prio, all new sockets belong to the
//! root cgroup (`cgroup_sk_alloc_disable` in kernel/cgroup/cgroup.c), and the fence's programs run for none of them.

use std::{
    io,
    net::SocketAddrV6,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
            UnixAddr, bind, connect, sendto, socket,
        },
        utsname::uname,
    },
};
use qfence_common::{
    HOOKS, Hook,
    proof::{self, Token},
};

use super::proof_sockets::Addresses;
use crate::base::{
    random,
    release::{self, Version},
};

/// The proof of a fence: destinations that only this fence refuses, and the error with which it does.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    token: Token,
    errno: Errno,
    /// For each hook, by its number, whether the fence has a program there.
    hooks: [bool; HOOKS.len()],
    /// The sockets that the hooks of security modules refuse, if the fence has these hooks.
    of_lsm: Option<Addresses>,
}

impl Proof {
    /// A proof for programs at these hooks that can or cannot choose the error.
    pub(crate) fn new(sets_errno: bool, hooks: &[Hook]) -> Self {
        let token = Token(random::number().max(1));
        let errno = if sets_errno {
            Errno::from_raw(proof::ERRNO)
        } else {
            Errno::EPERM
        };
        Self {
            token,
            errno,
            hooks: Hook::ALL.map(|hook| hooks.contains(&hook)),
            of_lsm: None,
        }
    }

    /// The same proof, also of the hooks of security modules.
    pub(super) fn with_lsm(self, addresses: Addresses) -> Self {
        Self {
            of_lsm: Some(addresses),
            ..self
        }
    }

    /// Whether the proof includes a hook: the fence has a program there.
    pub(crate) fn covers(self, hook: Hook) -> bool {
        if hook.is_lsm() {
            self.of_lsm.is_some()
        } else {
            self.hooks.get(hook as usize) == Some(&true)
        }
    }

    /// The part of the proof that the programs get.
    pub(crate) fn token(self) -> Token {
        self.token
    }

    /// Makes a socket and uses it at one of the hooks for calls with an address, where it must be refused. Only makes
    /// system calls, because it runs between fork and exec.
    ///
    /// The egress hook cannot be reached except through these hooks, and it uses the same field of the socket.
    ///
    /// # Errors
    /// The error that the call failed with instead, or number 0 if it succeeded.
    pub(crate) fn check(self, hook: Hook) -> io::Result<()> {
        let (family, kind) = match hook {
            Hook::Connect6 | Hook::Sendmsg6 | Hook::Bind6 => {
                (AddressFamily::Inet6, SockType::Datagram)
            }
            Hook::UnixStreamConnect => (AddressFamily::Unix, SockType::Stream),
            Hook::ConnectUnix | Hook::SendmsgUnix | Hook::UnixMaySend => {
                (AddressFamily::Unix, SockType::Datagram)
            }
            _ => (AddressFamily::Inet, SockType::Datagram),
        };
        let socket = match socket(family, kind, SockFlag::SOCK_CLOEXEC, None) {
            // No process can make such a socket, so there is nothing to prove.
            Err(Errno::EAFNOSUPPORT) => return Ok(()),
            made => made?,
        };
        match self.call(&socket, hook) {
            Err(errno) if errno == self.errno => Ok(()),
            Err(errno) => Err(errno.into()),
            Ok(()) => Err(io::Error::from_raw_os_error(0)),
        }
    }

    fn call(self, socket: &OwnedFd, hook: Hook) -> nix::Result<()> {
        let [a, b, c, d] = self.token.v4();
        let port = self.token.port();
        let v4 = SockaddrIn::new(a, b, c, d, port);
        let v6 = SockaddrIn6::from(SocketAddrV6::new(self.token.v6().into(), port, 0, 0));
        let send = |to: &dyn SockaddrLike| {
            sendto(socket.as_raw_fd(), &[], to, MsgFlags::MSG_DONTWAIT).map(drop)
        };
        let name = self.token.name();
        // The zero byte at its begin makes the name abstract.
        let named = || UnixAddr::new_abstract(&name[1..]);
        match hook {
            Hook::Connect6 => connect(socket.as_raw_fd(), &v6),
            Hook::Sendmsg4 => send(&v4),
            Hook::Sendmsg6 => send(&v6),
            Hook::ConnectUnix => connect(socket.as_raw_fd(), &named()?),
            Hook::SendmsgUnix => send(&named()?),
            // No host has these addresses, so without the program nothing is bound either.
            Hook::Bind4 => bind(socket.as_raw_fd(), &v4),
            Hook::Bind6 => bind(socket.as_raw_fd(), &v6),
            Hook::UnixStreamConnect => connect(socket.as_raw_fd(), self.address(hook)?),
            Hook::UnixMaySend => send(self.address(hook)?),
            _ => connect(socket.as_raw_fd(), &v4),
        }
    }

    /// The address of the socket for a hook of security modules.
    fn address(&self, hook: Hook) -> nix::Result<&UnixAddr> {
        let addresses = self.of_lsm.as_ref().ok_or(Errno::ENOTSUP)?;
        Ok(match hook {
            Hook::UnixStreamConnect => &addresses.stream,
            _ => &addresses.datagram,
        })
    }

    /// Describes a failed check.
    pub(crate) fn unproven(self, hook: Hook, error: &io::Error) -> Unproven {
        let release = uname().map(|names| names.release().to_string_lossy().into_owned());
        let was_allowed = error.raw_os_error() == Some(0);
        Unproven {
            hook: hook.name(),
            was_allowed,
            found: if was_allowed {
                "it was allowed".into()
            } else {
                format!(
                    "it failed with {:?}",
                    Errno::from_raw(error.raw_os_error().unwrap_or_default())
                )
            },
            wanted: self.errno,
            advice: advice(hook, error, &release.unwrap_or_default()),
        }
    }
}

/// The fence does not cover its sockets, or this cannot be proven.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot prove that the fence covers its sockets, so nothing was started: a socket that is made in it must be \
     refused with {wanted:?} at {hook}, and {found}; {advice}"
)]
pub struct Unproven {
    /// The hook at which the socket was not refused.
    hook: &'static str,
    /// Whether the call succeeded. Otherwise it failed with another error, and what the programs do is not known.
    was_allowed: bool,
    found: String,
    wanted: Errno,
    advice: String,
}

impl Unproven {
    /// Whether the call succeeded that the fence must refuse. If not, it failed with another error.
    pub(crate) const fn was_allowed(&self) -> bool {
        self.was_allowed
    }

    /// How the call ended: "it was allowed", or "it failed with" an error.
    pub(crate) fn found(&self) -> &str {
        &self.found
    }
}

/// The likely cause, and the remedy.
fn advice(hook: Hook, error: &io::Error, release: &str) -> String {
    let has_no_port = matches!(
        Errno::from_raw(error.raw_os_error().unwrap_or_default()),
        Errno::EAGAIN | Errno::EADDRINUSE
    );
    if has_no_port && matches!(hook, Hook::Sendmsg4 | Hook::Sendmsg6) {
        // The kernel chooses a port for a datagram before it runs the program (`inet_send_prepare` in net/ipv4/af_inet.c).
        "some process has bound all UDP ports that the kernel chooses from (net.ipv4.ip_local_port_range) in this network \
         namespace, so no other can send a datagram: find it with `ss -ulnp`, and end it, or let it close its sockets"
            .into()
    } else if hook.is_lsm() {
        "see what `qfence-user doctor` reports about managers, or give --allow-bus, with which this hook is not used".into()
    } else if release::parse(release)
        .is_some_and(|version| version < Version::SOCKETS_KEEP_THEIR_CGROUP)
    {
        format!(
            "on Linux before 5.15 (this is {release}) no socket is in a cgroup of version 2 any more \
             once net_cls or net_prio of version 1 has been used (`dmesg` has a line \"disabling \
             cgroup2 socket matching\"): boot with cgroup_no_v1=net_cls,net_prio, or use a newer kernel"
        )
    } else {
        "see what `qfence-user doctor` reports about foreign programs and security modules".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_one_that_is_called_so() {
        assert_eq!(Errno::from_raw(proof::ERRNO), Errno::ENOANO);
    }

    #[test]
    fn outside_of_a_fence_nothing_is_proved() {
        for sets_errno in [true, false] {
            let proof = Proof::new(sets_errno, &Hook::ALL);
            for hook in [Hook::Connect4, Hook::Connect6] {
                let there_are_none = hook == Hook::Connect6
                    && std::net::UdpSocket::bind("[::]:0")
                        .is_err_and(|error| error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT));
                assert_eq!(proof.check(hook).is_ok(), there_are_none, "{hook:?}");
            }
        }
    }

    #[test]
    fn what_was_found_is_told() {
        let proof = Proof::new(true, &Hook::ALL);
        let told = |error| proof.unproven(Hook::Connect6, &error).to_string();
        assert!(told(io::Error::from_raw_os_error(0)).starts_with(
            "cannot prove that the fence covers its sockets, so nothing was started: a socket that is made in \
                 it must be refused with ENOANO at connect6, and it was allowed; "
        ));
        assert!(told(Errno::EMFILE.into()).contains(", and it failed with EMFILE; "));
    }

    #[test]
    fn an_old_kernel_is_told_of_the_old_controllers() {
        for release in ["5.10.0-30-amd64", "5.14.21"] {
            assert!(
                advice(Hook::Connect4, &denied(), release)
                    .contains("cgroup_no_v1=net_cls,net_prio")
            );
        }
        for release in ["5.15.0", "6.18.44", ""] {
            assert!(!advice(Hook::Connect4, &denied(), release).contains("net_cls"));
        }
    }

    fn denied() -> io::Error {
        Errno::EACCES.into()
    }

    #[test]
    fn used_up_ports_are_told_of() {
        let advice = |hook, errno: Errno| advice(hook, &errno.into(), "6.18");
        for errno in [Errno::EAGAIN, Errno::EADDRINUSE] {
            assert!(advice(Hook::Sendmsg4, errno).contains("all UDP ports"));
            assert!(!advice(Hook::Connect4, errno).contains("all UDP ports"));
        }
        assert!(!advice(Hook::Sendmsg6, Errno::EPERM).contains("all UDP ports"));
    }
}
