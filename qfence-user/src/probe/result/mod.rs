//! The outcome of a probe, and the meaning of an error: a refusal, or that this kernel or this user cannot make the
//! probe.

use std::{fmt, io, time::Duration};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    method::{Datagram, Method, Sending},
    spec::Probe,
};

/// One line of `qfence-verify probe`, and of the executable `probe` of the tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The probe, in its syntax.
    #[serde(rename = "attempt")]
    pub probe: String,
    /// The ending.
    pub ending: Ending,
    /// The step that failed or reached the time limit, if any.
    pub step: Option<Step>,
    /// The error, for example `ECONNREFUSED`.
    pub errno: Option<String>,
    /// The answer of the peer; for ICMP and TCP the type of the answer, in words.
    pub reply: Option<String>,
    /// The duration, in milliseconds.
    pub ms: f64,
}

/// The ending of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The connection is established, or an answer came.
    Reached,
    /// The kernel accepted all that was sent, and no answer came within the time limit.
    Sent,
    /// The connection was not established within the time limit.
    Timeout,
    /// A step failed. If it was [`Step::Receive`], the kernel had accepted all that was sent.
    Failed,
    /// This kernel does not support the method; nothing was sent.
    Unsupported,
    /// This user lacks the permission, with or without a fence; nothing was sent.
    Unprivileged,
}

/// The steps of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// socket(), or a copy of its descriptor. Nothing was sent before.
    Socket,
    /// setsockopt(), and the lookup of a device by its name.
    Setsockopt,
    /// bind().
    Bind,
    /// Setting up io_uring.
    Ring,
    /// connect() in any form, also to the decoy.
    Connect,
    /// Sending in any form.
    Send,
    /// Receiving: for example, an ICMP error came back.
    Receive,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Socket => "socket",
            Self::Setsockopt => "setsockopt",
            Self::Bind => "bind",
            Self::Ring => "ring",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Receive => "receive",
        })
    }
}

impl ProbeResult {
    /// Whether the peer answered.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.ending == Ending::Reached
    }

    /// Whether the probe is possible for this user on this kernel.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        !matches!(self.ending, Ending::Unsupported | Ending::Unprivileged)
    }

    /// Whether it had a socket. Without one it sent nothing.
    #[must_use]
    pub fn had_socket(&self) -> bool {
        self.step != Some(Step::Socket)
    }

    /// Whether it failed with this error, at any step.
    #[must_use]
    pub fn failed_with(&self, errno: &str) -> bool {
        self.ending == Ending::Failed && self.errno.as_deref() == Some(errno)
    }

    /// Whether this step failed with this error.
    #[must_use]
    pub fn failed_at(&self, step: Step, errno: &str) -> bool {
        self.failed_with(errno) && self.step == Some(step)
    }

    /// Whether the peer answered with a text that contains this one.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        let reply = self.reply.as_deref();
        self.is_reached() && reply.is_some_and(|reply| reply.contains(text))
    }

    pub(super) fn new(
        probe: &Probe,
        result: Result<Option<String>, Stop>,
        after: Duration,
    ) -> Self {
        let (ending, step, errno, reply) = match result {
            Ok(reply) => (Ending::Reached, None, None, reply),
            Err(Stop::Sent) => (Ending::Sent, None, None, None),
            Err(Stop::Timeout(step)) => (Ending::Timeout, Some(step), None, None),
            Err(Stop::Unprivileged(step, errno)) => {
                (Ending::Unprivileged, Some(step), Some(errno), None)
            }
            Err(Stop::Failed(step, errno)) => {
                let absent = is_absence(probe, step, errno);
                let ending = if absent {
                    Ending::Unsupported
                } else {
                    Ending::Failed
                };
                (ending, Some(step), Some(errno), None)
            }
        };
        let microseconds = after.as_micros();
        Self {
            probe: probe.to_string(),
            ending,
            step,
            errno: errno.map(|errno| format!("{errno:?}")),
            reply,
            ms: f64::from(u32::try_from(microseconds).unwrap_or(u32::MAX)) / 1000.0,
        }
    }
}

/// The reason for which a probe does not reach its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// All was sent, and no answer came.
    Sent,
    /// A step reached the time limit.
    Timeout(Step),
    /// A step failed.
    Failed(Step, Errno),
    /// A step failed for lack of a capability.
    Unprivileged(Step, Errno),
}

/// Adds the step to an I/O error.
pub(super) trait At<T> {
    /// Returns `self`, with the step at which it failed.
    fn at(self, step: Step) -> Result<T, Stop>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: Step) -> Result<T, Stop> {
        self.map_err(|error| Stop::Failed(step, errno_of(&error)))
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: Step) -> Result<T, Stop> {
        self.map_err(|errno| Stop::Failed(step, errno))
    }
}

/// The number of an error. Errors of the standard library itself (for example, for a name with a NUL) concern
/// arguments.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// Whether an error means that the kernel lacks the method. None of these errors can be caused by a fence, which
/// refuses with EPERM, EACCES, ECONNREFUSED, ENETUNREACH or EHOSTUNREACH.
fn is_absence(probe: &Probe, step: Step, errno: Errno) -> bool {
    use Errno::{
        EAFNOSUPPORT, EINVAL, EIO, ENOPROTOOPT, ENOSYS, EOPNOTSUPP, EPROTONOSUPPORT, EPROTOTYPE,
        ESOCKTNOSUPPORT,
    };
    match (step, errno) {
        // Setting up a ring sends nothing, so none of its errors concerns a destination.
        (Step::Ring, _) | (_, ENOSYS | EOPNOTSUPP) => true,
        (Step::Socket, EPROTONOSUPPORT | ESOCKTNOSUPPORT | EPROTOTYPE | EAFNOSUPPORT) => true,
        (Step::Setsockopt, ENOPROTOOPT) => true,
        // ENOTSUPP, which has no name in user space: no zero-copy for this protocol.
        (Step::Setsockopt, Errno::UnknownErrno) => probe.method.sends(Sending::Zerocopy),
        // net/ipv6/ipv6_sockglue.c: without CONFIG_IPV6_MIP6 only type 4 is supported.
        (Step::Setsockopt, EINVAL) => probe.options.home_route.is_some(),
        // net/ipv4/udp.c: no GSO without checksums, or with a device that does not support it.
        (Step::Send, EIO) => probe.method.sends(Sending::Gso),
        _ => false,
    }
}

/// Whether an error means the lack of a capability, with or without a fence.
///
/// The kernel checks `CAP_NET_RAW`, and the group of a ping socket, before it runs the programs of a fence
/// (`inet_create` in net/ipv4/af_inet.c; ping sockets fail with EACCES, the programs with EPERM). A fence does not
/// decide about options.
pub(super) fn is_for_want_of_privilege(
    method: Method,
    step: Step,
    errno: Errno,
    may_raw: bool,
) -> bool {
    match (step, errno) {
        (Step::Socket, Errno::EACCES) => matches!(method, Method::Datagram(Datagram::Ping, _)),
        (Step::Socket, Errno::EPERM) => method.is_raw() && !may_raw,
        (Step::Setsockopt, Errno::EPERM) => !may_raw,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
